"""What the card at hand reaches of its roofline, or a processor of what numpy reaches: steps of SFT, reward model and
DPO, scoring and sampling, by the stages' own trainers and workers.

Run     python -m tests.perf.gpu [--model models/base --rows 64 --words 300]     (with the params.yaml that is here:
        python -m stages.tools.profile quickstart dtype=bfloat16 runtime.micro_batch_rows=8; a model of another size
        without its weights: tests/perf/blank.py)
Prints  a Markdown table: tokens/s, TFLOP/s as the plan counts them, their share of the peak, the most memory. Loading
        is left out, and of a training the first two steps, which pay for kernels and allocator

Each row is a prompt and an answer of so many words together, drawn from the quickstart's prompts with a fixed seed.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stages.guard import lean, quiet, spent
from stages.guard.params import load
from stages.pairs import offline
from stages.tools.plan import devices, work
from stages.tools.plan.forecast import leaves

WARM = 2
"""Steps of a training that are not counted."""


class Seen(NamedTuple):
    """Tokens and floating-point operations in so many seconds; the most memory in GiB."""

    tokens: float
    flop: float
    seconds: float
    memory: float


def rows(number: int, words: int) -> list[dict]:
    """Pairs of answers to a prompt; each side has half of the words."""
    drawn, text = random.Random(1), Path("data/raw/quickstart/prompts.jsonl").read_text(encoding="utf-8")
    known = [word for word in text.split() if word.isalpha()]
    said = lambda role: [{"role": role, "content": " ".join(drawn.choices(known, k=words // 2))}]  # noqa: E731
    return [
        {
            "id": str(k),
            "prompt": said("user"),
            **{side: said("assistant") for side in ("chosen", "rejected")},
            **{f"{side}_finished": True for side in ("chosen", "rejected")},
            "margin": 0.0,
            "made_in": "offline",
        }
        for k in range(number)
    ]


def settled(words: int) -> Any:
    """params.yaml, one epoch of all rows, and no validation."""
    params, once = load(Path("params.yaml")), {"epochs": 1, "max_tokens": 8 * words}
    changes = {
        "sft": once | {"rows": None},
        "reward_model": once | {"layers": None, "validation_share": 0.0, "evaluations": 0},
        "dpo": once,
    }
    return params.model_copy(
        update={name: getattr(params, name).model_copy(update=new) for name, new in changes.items()}
    )


def done(params: Any, stage: str, tokens: float | None, seconds: float, share: float, **arguments: Path) -> Seen:
    """What a stage that ran on these arguments did, or a share of it."""
    known = {"stage": stage, "files": spent.told(arguments), "params": leaves(params.model_dump())}
    line = known | spent.peaks() | {"runtime": params.runtime.model_dump(), "device": "", "seconds": seconds}
    past = devices.past(line)
    counted = work.of(past.case)
    return Seen(share * (tokens or counted.tokens), share * counted.flop, seconds, past.memory / 2**30)


def trained(params: Any, stage: str, call: Callable[[], object], **arguments: Path) -> Seen:
    """Of a training the steps after the first few."""
    import torch
    from transformers import TrainerCallback

    from stages.training import harness

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    plain = harness.train

    def watched(trainer: Any, *more: Any) -> None:
        trainer.add_callback(Clock())
        plain(trainer, *more)

    harness.train = watched
    call()
    steps = len(ends) - WARM
    if steps < 1:
        sys.exit(f"gpu: {len(ends)} steps, of which {WARM} do not count; give more --rows")
    return done(params, stage, None, ends[-1] - ends[WARM - 1], steps / len(ends), **arguments)


def sft(params: Any, model: Path, pairs: Path, folder: Path) -> Seen:
    from stages.training import sft

    told = {"policy": folder / "policy", "curve": folder / "curve", "metrics": folder / "metrics"}
    given = {"model": model, "demonstrations": pairs}
    return trained(params, "training.sft", lambda: sft.main(params, **given, **told), **given)


def reward_model(params: Any, model: Path, pairs: Path, folder: Path) -> Seen:
    from stages.training import reward_model

    told = {"reward": folder / "reward", "curve": folder / "curve", "metrics": folder / "metrics"}
    given = {"model": model, "train": pairs}
    call = lambda: reward_model.main(params, member=0, **given, **told)  # noqa: E731
    return trained(params, "training.reward_model", call, **given)


def dpo(params: Any, model: Path, pairs: Path, folder: Path) -> Seen:
    from stages.training import dpo, reference

    reference.main(params, model, pairs, reference=folder / "history.parquet")
    told = {"policy": folder / "policy", "curve": folder / "curve", "metrics": folder / "metrics"}
    given = {"model": model, "history": folder / "history.parquet"}
    call = lambda: dpo.main(params, sampled=model, reference=model, **given, **told)  # noqa: E731
    return trained(params, "training.dpo", call, **given)


def scoring(params: Any, model: Path, pairs: Path, folder: Path) -> Seen:
    """log pi of an answer, the workers' that `measure` takes."""
    from stages.signals import batching, workers

    asked = [
        row | {"completion": row["chosen"][0]["content"], "finished": True} for row in pq.read_table(pairs).to_pylist()
    ]
    pq.write_table(
        pa.Table.from_pylist([{key: row[key] for key in ("id", "prompt", "completion")} for row in asked]),
        folder / "answers.parquet",
    )
    score = workers.Logprobs(model, params.dtype, batching.layout(params.runtime), alone=False).load()
    score(asked[:8], lambda number: None)
    start = time.perf_counter()
    score(asked, lambda number: None)
    given = {"policy": model, "responses": folder / "answers.parquet"}
    return done(params, "signals.measure", None, time.perf_counter() - start, 1.0, **given)


def sampling(params: Any, model: Path, pairs: Path, folder: Path) -> Seen:
    from stages.sampling import engine

    prompts = [{"id": row["id"], "prompt": row["prompt"]} for row in pq.read_table(pairs).to_pylist()]
    asked = [row | {"temperature": 1.0, "seed": engine.row_seed(1, row["id"], k)} for row in prompts for k in range(8)]
    sample = engine.sampler(model, [row["prompt"] for row in prompts], params, with_logprob=False).load()
    sample(asked[:8], lambda number: None)
    start = time.perf_counter()
    made = sample(asked, lambda number: None)
    seconds, tokens = time.perf_counter() - start, sum(len(row["token_ids"]) for row in made)
    kept = ("id", "prompt", "completion", "token_ids")
    pq.write_table(pa.Table.from_pylist([{key: row[key] for key in kept} for row in made]), folder / "answers.parquet")
    given = {"policy": model, "candidates": folder / "answers.parquet"}
    return done(params, "sampling.generate", tokens, seconds, 1.0, **given)


WHAT = {each.__name__: each for each in (sft, reward_model, dpo, scoring, sampling)}


def measured(name: str, words: list[str]) -> Seen:
    """One of them in a process of its own, which gives the card's memory back."""
    environment = os.environ | quiet.ENVIRONMENT | lean.ENVIRONMENT
    command = [sys.executable, "-m", "tests.perf.gpu", "--one", name, *words]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return Seen(*json.loads(ran.stdout.splitlines()[-1]))


def main(model: Path, rows_: int, words: int, one: str | None) -> None:
    params = settled(words)
    if one:
        quiet.loggers()
        with tempfile.TemporaryDirectory() as folder:
            pairs = Path(folder) / "pairs.parquet"
            pq.write_table(pa.Table.from_pylist(rows(rows_, words), offline.SCHEMA), pairs)
            print(json.dumps(WHAT[one](params, model, pairs, Path(folder))))
        return
    device = devices.here(params.runtime.threads)
    peak = device.flops[params.dtype]
    print(f"{model} in {params.dtype} on {device.name}, peak {peak / 1e12:.2f} TFLOP/s\n")
    print("| what | tokens/s | TFLOP/s | of the peak | GiB |\n|---|---:|---:|---:|---:|")
    given = ["--model", str(model), "--rows", str(rows_), "--words", str(words)]
    for name in WHAT:
        seen = measured(name, given)
        rate = seen.flop / seen.seconds
        told = f"{seen.tokens / seen.seconds:,.0f} | {rate / 1e12:.2f} | {rate / peak:.0%} | {seen.memory:.1f}"
        print(f"| {name} | {told} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/base"))
    parser.add_argument("--rows", type=int, default=64, dest="rows_")
    parser.add_argument("--words", type=int, default=300)
    parser.add_argument("--one", choices=WHAT)
    main(**vars(parser.parse_args()))
