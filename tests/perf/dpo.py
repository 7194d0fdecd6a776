"""What a DPO step costs: our way, TRL's with the same layout, and TRL's with all its defaults, which recompute activations too.

Run     python -m tests.perf.dpo [models/pi0 data/history/pi0.parquet]     (after `make repro`; the rounds alternate)
Prints  pairs/s of each way (medians), the ratios to ours, and the largest difference of a step's loss
"""

import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq

from stages import chat, dpo, objectives, training
from stages.params import load

ROUNDS, PAIRS = 3, 24


def prepared(model: Path, history: Path) -> tuple[Any, list[dict]]:
    tokenizer = chat.load_tokenizer(model)
    return tokenizer, [dpo.tokenize(tokenizer, row) for row in pq.read_table(history).to_pylist()[:PAIRS]]


def timed(trainer: Any) -> tuple[list[float], float]:
    """The losses, and the seconds of `train` alone; what it prints is swallowed."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    seconds = time.perf_counter() - start
    return [step["loss"] for step in trainer.state.log_history if "loss" in step], seconds


def ours(model: Path, tokenizer: Any, pairs: list[dict], params: Any) -> tuple[list[float], float]:
    arguments = training.arguments(params.dpo, params, len(pairs))
    return timed(objectives.trainer(params.dpo, arguments, dpo.load(model, params.dtype, False), pairs, len(pairs), tokenizer, None, None))


def trls(model: Path, tokenizer: Any, pairs: list[dict], params: Any, checkpointing: bool) -> tuple[list[float], float]:
    """DPOTrainer as it comes: the reference's forward in every step, rows in the order of the shuffle."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Plain(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    rows = Dataset.from_list([{name: pair[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for pair in pairs])
    arguments: Any = training.arguments(params.dpo, params, len(pairs)) | {"gradient_checkpointing": checkpointing}
    settings = DPOConfig(**arguments, beta=params.dpo.beta)
    return timed(Plain(dpo.load(model, params.dtype, False), args=settings, train_dataset=rows, processing_class=tokenizer))


def main() -> None:
    model, history = Path(sys.argv[1] if len(sys.argv) > 1 else "models/pi0"), Path(sys.argv[2] if len(sys.argv) > 2 else "data/history/pi0.parquet")
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # where the trainers' empty output folders go
        tokenizer, pairs = prepared(model, history)
        params = load(Path("params.yaml"))
        params = SimpleNamespace(dpo=params.dpo, dtype=params.dtype, seed=params.seed, runtime=params.runtime)
        ways = {
            "ours": lambda: ours(model, tokenizer, pairs, params),
            "TRL, no checkpointing": lambda: trls(model, tokenizer, pairs, params, False),
            "TRL's defaults": lambda: trls(model, tokenizer, pairs, params, True),
        }
        losses: dict[str, list[float]] = {}
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                losses[name], seconds = way()
                speeds[name].append(len(pairs) / seconds)
    best = statistics.median(speeds["ours"])
    for name, values in speeds.items():
        apart = max(abs(a - b) for a, b in zip(losses[name], losses["ours"], strict=True))
        middle = statistics.median(values)
        print(f"{name}: {middle:.3f} pairs/s {[round(v, 3) for v in values]}, ours is {best / middle:.2f} times as fast, loss differs by {apart:.1e}")


if __name__ == "__main__":
    main()
