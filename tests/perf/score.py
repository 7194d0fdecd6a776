"""What scoring costs: our way, the bare forward passes, and one text at a time through a text-classification pipeline,
as RLHFlow scores.

Run     python -m tests.perf.score [models/reward data/candidates/pi0-0.parquet]     (after `make repro`; the rounds
        alternate)
Prints  tokens/s of each way (medians), their ratios, and the largest difference of a reward, on the quickstart's texts
        and on prompts three times as long as their answers
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq

from stages import chat
from stages.signals import forward

ROUNDS = 3
RUNTIME = SimpleNamespace(threads=2, forward_batch_tokens=2048)


def longer(rows: list[dict]) -> list[dict]:
    """The same answers to prompts about three times as long: the prompt is preceded by turns made of other answers."""
    prompts = list(dict.fromkeys(row["id"] for row in rows))
    texts = [row["completion"] for row in rows]
    asked = {name: " ".join(texts[(7 * k + j) % len(texts)] for j in range(3)) for k, name in enumerate(prompts)}
    return [
        row | {"prompt": [{"role": "user", "content": f"{asked[row['id']]} {row['prompt'][-1]['content']}"}]}
        for row in rows
    ]


def ours(model: Path, rows: list[dict]) -> list[float]:
    tokens = forward.tokenized(model, [(row["prompt"], row["completion"], row["finished"]) for row in rows])
    return forward.rewards(model, tokens, "float32", RUNTIME, [row["id"] for row in rows])


def bare(network: Any, sequences: list[list[int]]) -> None:
    """Nothing but forward passes, of rows of like length."""
    import torch

    with torch.inference_mode():
        for rows in forward.batches([len(s) for s in sequences], RUNTIME.forward_batch_tokens):
            width = min(len(sequences[i]) for i in rows)
            network(input_ids=torch.tensor([sequences[i][:width] for i in rows]), use_cache=False)


def pipeline(model: Path) -> Callable[[list[str]], list[float]]:
    """One text at a time, as RLHFlow's get_rewards does."""
    import transformers

    classify = transformers.pipeline("text-classification", model=str(model), function_to_apply="none", dtype="float32")
    return lambda texts: [classify(text)[0]["score"] for text in texts]


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def compare(title: str, model: Path, rows: list[dict]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(2)
    tokenizer, network = (
        chat.load_tokenizer(model),
        AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval(),
    )
    pairs = forward.tokenized(model, [(row["prompt"], row["completion"], row["finished"]) for row in rows])
    sequences, naive = [p + c for p, c in pairs], pipeline(model)
    texts = [tokenizer.decode(s) for s in sequences]
    total, sent = sum(map(len, sequences)), sum(len(tokenizer(t).input_ids) for t in texts)
    spent: dict[str, list[float]] = {"ours": [], "bare forward": [], "pipeline, batch 1": []}
    difference = 0.0
    for _ in range(ROUNDS):
        mine, seconds = timed(lambda: ours(model, rows))
        spent["ours"].append(seconds)
        spent["bare forward"].append(timed(lambda: bare(network, sequences))[1])
        theirs, seconds = timed(lambda: naive(texts))
        spent["pipeline, batch 1"].append(seconds)
        difference = max(abs(a - b) for a, b in zip(mine, theirs, strict=True)) if sent == total else difference
    medians = {name: statistics.median(seconds) for name, seconds in spent.items()}
    prompt = sum(len(p) for p, _ in pairs) / len(pairs)
    print(
        f"{title}: {len(rows)} answers to {len({r['id'] for r in rows})} prompts, {total:,} tokens, {prompt:.0f} of the prompt and",
        end=" ",
    )
    print(f"{total / len(rows) - prompt:.0f} of the answer each; largest difference of a reward {difference:.1e}")
    for name, seconds in medians.items():
        print(
            f"  {name:18s} {seconds:6.1f} s  {total / seconds:7,.0f} tokens/s   ours is {seconds / medians['ours']:.2f} times as fast"
        )


def main() -> None:
    model, *files = map(Path, sys.argv[1:] or ["models/reward", "data/candidates/pi0-0.parquet"])
    rows = [row for file in files for row in pq.read_table(file).to_pylist()][:256]
    compare("as sampled", model, rows)
    compare("long prompts", model, longer(rows))


if __name__ == "__main__":
    main()
