"""What a DPO step costs: our way, TRL's with the same layout, and TRL's with all its defaults, which recompute
activations too; on a GPU adapters as well.

Run     python -m tests.perf.dpo [--model models/pi0 --pairs data/pairs/offline.parquet --number 24 --answers 1]
        (after `make repro`; the rounds alternate)
Prints  pairs/s of the reference, once, and of each way (medians), the ratios to ours, the largest difference of a
        step's loss where it is the same training, on a GPU the memory at most

The quickstart's answers are short; with --answers 12 each side is 1 to 12 of them in a row, about as long and as
unlike as an assistant's.
"""

import argparse
import contextlib
import gc
import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import torch
from datasets import Dataset

from stages import chat, rows
from stages.guard.params import load
from stages.signals import batching
from stages.training import dpo, harness, lora, objectives, reference

ROUNDS = 3
SIDES = ("chosen", "rejected")


class Run(NamedTuple):
    """One training: the loss of each step, the seconds of `train` alone, and the most memory of a GPU that was taken,
    in GiB.
    """

    losses: list[float]
    seconds: float
    memory: float


def lengthened(asked: list[dict], answers: int) -> list[dict]:
    """Each side followed by up to so many others, drawn with the row's id as seed."""
    texts = [row[side][0]["content"] for row in asked for side in SIDES]
    made = []
    for row in asked:
        drawn, sides = random.Random(row["id"]), {}
        for side in SIDES:
            more = drawn.choices(texts, k=drawn.randrange(answers))
            sides[side] = [{"role": "assistant", "content": " ".join([row[side][0]["content"], *more])}]
        made.append(row | sides)
    return made


def referred(model: Path, asked: list[dict], params: Any) -> Any:
    """The rows as `dpo` trains on them, with the reference's log-probabilities as the stage `reference` computes them;
    prints how fast that was.
    """
    worker = reference.Reference(model, params.dtype, params.dpo.quantized, batching.layout(params.runtime))
    start = time.perf_counter()
    (known,) = rows.mapped([asked], worker, "reference", reference.CHUNK, key=("id",))
    rate = len(asked) / (time.perf_counter() - start)
    print(f"reference: {rate:.3f} pairs/s, loading included")
    tokenizer = chat.load_tokenizer(model)
    pairs = [dpo.tokenize(tokenizer, row) for row in known]
    sized = [pair | {"length": objectives.length(pair)} for pair in pairs]
    return Dataset.from_list([pair for pair in sized if pair["length"] <= params.dpo.max_tokens])


def timed(trainer: Any) -> Run:
    """What the trainer prints is swallowed."""
    gc.collect()  # the trainer before this one
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    seconds = time.perf_counter() - start  # the trainer has read the last loss: the GPU is done
    losses = [step["loss"] for step in trainer.state.log_history if "loss" in step]
    return Run(losses, seconds, torch.cuda.max_memory_allocated() / 2**30)


def ours(model: Path, tokenizer: Any, pairs: Any, params: Any, **changes: Any) -> Run:
    section = params.dpo.model_copy(update=changes)
    arguments = harness.arguments(section, params, len(pairs))
    adapter = lora.config(section.lora_rank, section.lora_alpha) if section.lora_rank else None
    network = dpo.load(model, params.dtype, section.quantized)
    return timed(objectives.trainer(section, arguments, pairs, tokenizer, lambda: network, None, adapter))


def trls(model: Path, tokenizer: Any, pairs: Any, params: Any, checkpointing: bool) -> Run:
    """DPOTrainer as it comes: the reference's forward in every step, rows in the order of the shuffle."""
    from trl import DPOConfig, DPOTrainer

    class Plain(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    dataset = pairs.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])
    arguments: Any = harness.arguments(params.dpo, params, len(pairs)) | {"gradient_checkpointing": checkpointing}
    settings, network = DPOConfig(**arguments, beta=params.dpo.beta), dpo.load(model, params.dtype, False)
    return timed(Plain(network, args=settings, train_dataset=dataset, processing_class=tokenizer))


def ways(model: Path, tokenizer: Any, pairs: Any, params: Any) -> dict[str, Callable[[], Run]]:
    given = (model, tokenizer, pairs, params)
    same = {
        "ours": lambda: ours(*given),
        "TRL, no checkpointing": lambda: trls(*given, False),
        "TRL's defaults": lambda: trls(*given, True),
    }
    adapters = {
        "ours, LoRA": lambda: ours(*given, lora_rank=16),
        "ours, QLoRA": lambda: ours(*given, lora_rank=16, quantized=True),
    }
    return same | (adapters if torch.cuda.is_available() else {})


def in_turn(model: Path, tokenizer: Any, pairs: Any, params: Any) -> dict[str, list[Run]]:
    """ROUNDS runs of each way. One more comes first and is left out: it pays for kernels, allocator and page cache."""
    runs: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # where the trainers' empty output folders go
        for _ in range(1 + ROUNDS):
            for name, way in ways(model, tokenizer, pairs, params).items():
                runs.setdefault(name, []).append(way())
    return {name: each[1:] for name, each in runs.items()}


def told(name: str, runs: list[Run], same: Run) -> str:
    """What differs from `same`, our training, where it is the same one, and on a GPU the memory."""
    parts = []
    if "LoRA" not in name:
        apart = max(abs(a - b) for a, b in zip(runs[0].losses, same.losses, strict=True))
        parts.append(f", loss differs by {apart:.1e}")
    if torch.cuda.is_available():
        parts.append(f", {runs[0].memory:.1f} GiB")
    return "".join(parts)


def main(model: Path, pairs: Path, number: int, answers: int) -> None:
    tokenizer, params = chat.load_tokenizer(model), load(Path("params.yaml"))
    asked = lengthened(pq.read_table(pairs).to_pylist()[:number], answers)
    ready = referred(model, asked, params)
    runs = in_turn(model, tokenizer, ready, params)
    lengths = ready["length"][:]
    mean = statistics.mean(lengths)
    print(f"{len(ready)} pairs, prompt and longer side {mean:.0f} tokens, at most {max(lengths)}")
    speeds = {name: [len(ready) / run.seconds for run in each] for name, each in runs.items()}
    best = statistics.median(speeds["ours"])
    for name, each in runs.items():
        middle, rounds = statistics.median(speeds[name]), [round(speed, 3) for speed in speeds[name]]
        rest = told(name, each, runs["ours"][0])
        print(f"{name}: {middle:.3f} pairs/s {rounds}, ours is {best / middle:.2f} times as fast{rest}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/pi0"))
    parser.add_argument("--pairs", type=Path, default=Path("data/pairs/offline.parquet"))
    parser.add_argument("--number", type=int, default=24)
    parser.add_argument("--answers", type=int, default=1)
    main(**vars(parser.parse_args()))
