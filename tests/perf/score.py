"""What scoring costs: our way, the bare forward passes, and one text at a time through a text-classification pipeline,
as RLHFlow scores.

Run     python -m tests.perf.score [models/reward data/candidates/pi0]     (after `make repro`; the rounds
        alternate)
Prints  tokens/s of each way (medians), their ratios, and the largest difference of a reward, on the quickstart's texts
        and on prompts three times as long as their answers
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages import chat, rows, shards
from stages.signals import batching, forward, workers

ROUNDS = 3
LAYOUT = batching.Layout(threads=2, forward_batch_tokens=2048)


def longer(asked: list[dict]) -> list[dict]:
    """The same answers to prompts about three times as long: the prompt is preceded by turns made of other answers."""
    prompts = list(dict.fromkeys(row["id"] for row in asked))
    texts = [row["completion"] for row in asked]
    before = {name: " ".join(texts[(7 * k + j) % len(texts)] for j in range(3)) for k, name in enumerate(prompts)}
    return [
        row | {"prompt": [{"role": "user", "content": f"{before[row['id']]} {row['prompt'][-1]['content']}"}]}
        for row in asked
    ]


def ours(model: Path, asked: list[dict]) -> list[float]:
    """As the stage scores, its chunks and the loading of the model included."""
    (scored,) = rows.mapped([asked], workers.Rewards(model, "float32", LAYOUT), "ours", batching.CHUNK)
    return [row["reward"] for row in scored]


def bare(network: Any, sequences: list[list[int]]) -> None:
    """Nothing but forward passes, of rows of like length."""
    import torch

    with torch.inference_mode():
        for batch in batching.batches([len(s) for s in sequences], LAYOUT.forward_batch_tokens):
            width = min(len(sequences[i]) for i in batch)
            network(input_ids=torch.tensor([sequences[i][:width] for i in batch]), use_cache=False)


def pipeline(model: Path) -> Callable[[list[str]], list[float]]:
    """One text at a time, as RLHFlow's get_rewards does."""
    import transformers

    classify = transformers.pipeline("text-classification", model=str(model), function_to_apply="none", dtype="float32")
    return lambda texts: [classify(text)[0]["score"] for text in texts]


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def compare(title: str, model: Path, asked: list[dict]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(2)
    tokenizer = chat.load_tokenizer(model)
    network = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()
    pairs = forward.tokenized(tokenizer, asked)
    sequences, naive = [prompt + completion for prompt, completion in pairs], pipeline(model)
    texts = [tokenizer.decode(sequence) for sequence in sequences]
    total, sent = sum(map(len, sequences)), sum(len(tokenizer(text).input_ids) for text in texts)
    spent: dict[str, list[float]] = {"ours": [], "bare forward": [], "pipeline, batch 1": []}
    difference = 0.0
    for _ in range(ROUNDS):
        mine, seconds = timed(lambda: ours(model, asked))
        spent["ours"].append(seconds)
        spent["bare forward"].append(timed(lambda: bare(network, sequences))[1])
        theirs, seconds = timed(lambda: naive(texts))
        spent["pipeline, batch 1"].append(seconds)
        difference = max(abs(a - b) for a, b in zip(mine, theirs, strict=True)) if sent == total else difference
    medians = {name: statistics.median(seconds) for name, seconds in spent.items()}
    prompts, prompt = len({row["id"] for row in asked}), sum(len(prompt) for prompt, _ in pairs) / len(pairs)
    print(f"{title}: {len(asked)} answers to {prompts} prompts, {total:,} tokens,", end=" ")
    print(f"{prompt:.0f} of the prompt and {total / len(asked) - prompt:.0f} of the answer each;", end=" ")
    print(f"largest difference of a reward {difference:.1e}")
    for name, seconds in medians.items():
        times = seconds / medians["ours"]
        print(f"  {name:18s} {seconds:6.1f} s  {total / seconds:7,.0f} tokens/s   ours is {times:.2f} times as fast")


def main() -> None:
    model, candidates = map(Path, sys.argv[1:] or ["models/reward", "data/candidates/pi0"])
    asked = shards.read(candidates)[:256]
    compare("as sampled", model, asked)
    compare("long prompts", model, longer(asked))


if __name__ == "__main__":
    main()
