"""What watches a training: a bar with the loss, checkpoints that are whole or not there, and the stop where a number is
lost.
"""

import json
import math
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXPLODED = 1e3
"""How many times its first step's a gradient norm, before clipping, may be. The first may be any number: the
quickstart's lie between 4 and 16, SPPO's at a small beta over 1e4.
"""
LISTED = "complete.json"
"""What a whole checkpoint holds: its files' sizes in bytes."""

RowsOf = Callable[[int], list[str]]
"""The ids of the rows of an optimiser step."""


def whole(checkpoint: Path) -> bool:
    """Whether a checkpoint holds every file, of the right size, that stood in it when it was finished."""
    listed = checkpoint / LISTED
    if not listed.exists():
        return False
    sizes = json.loads(listed.read_text(encoding="utf-8"))
    files = {checkpoint / name: size for name, size in sizes.items()}
    return all(file.exists() and file.stat().st_size == size for file, size in files.items())


def steps_done(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def last_whole(folder: Path) -> Path | None:
    """The checkpoint to go on from."""
    return max(filter(whole, folder.glob("checkpoint-*")), key=steps_done, default=None)


def finish(folder: Path, best: str) -> None:
    """Mark a checkpoint as whole, and remove the others but the best: only now, so that at no moment there is none."""
    sizes = {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
    part = folder / "complete.part"
    part.write_text(json.dumps(sizes), encoding="utf-8")
    os.replace(part, folder / LISTED)
    for old in folder.parent.glob("checkpoint-*"):
        if old.name not in (folder.name, best):
            shutil.rmtree(old, ignore_errors=True)


def callbacks(rows_of: RowsOf | None) -> list[Any]:
    """A bar with the loss behind it, in place of a line per step; and what marks checkpoints as whole and stops a run
    whose numbers are lost.
    """
    import torch
    from transformers import ProgressCallback, TrainerCallback

    class Bar(ProgressCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if self.training_bar is not None and "loss" in (logs or {}):
                self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")

    class Watch(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if torch.distributed.is_initialized():
                torch.distributed.barrier()  # every process has written its part
            if state.is_world_process_zero and folder.exists():
                finish(folder, f"checkpoint-{state.best_global_step}")

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # transformers saves at the end too, optimiser and all, of what `harness.save` is about to write
            if state.global_step >= state.max_steps and not args.load_best_model_at_end:
                control.should_save = False

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            first = next((step["grad_norm"] for step in state.log_history if "grad_norm" in step), 1.0)
            check_numbers(state.global_step, logs or {}, first, rows_of)

    return [Bar(), Watch()]


def speed() -> Any:
    """What a tracker of live curves is told beside the trainer's own log: steps a minute, and the most memory that was
    held, in GiB.
    """
    import torch
    from transformers import TrainerCallback

    class Speed(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.began, self.first = time.monotonic(), state.global_step

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            minutes = max(time.monotonic() - self.began, 1e-9) / 60
            held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
            if torch.cuda.is_available():
                held = torch.cuda.max_memory_allocated()
            logs["steps_per_minute"] = (state.global_step - self.first) / minutes
            logs["memory_gib"] = held / 2**30

    return Speed()


def check_numbers(step: int, logs: dict[str, Any], first: float, rows_of: RowsOf | None) -> None:
    """Raise ValueError for a loss or gradient norm that no training comes back from; `first` is the norm of the first
    step.
    """
    loss, norm = logs.get("loss", 0.0), logs.get("grad_norm", 0.0)
    lost = ""
    if not math.isfinite(loss):
        lost = f"loss is {loss:g}"
    elif not math.isfinite(norm):
        lost = f"grad_norm is {norm:g}"
    elif norm > EXPLODED * max(first, 1.0):
        lost = f"grad_norm is {norm:g}, {first:g} at the first step"
    if lost:
        rows = named(rows_of(step)) if rows_of else ""
        remedy = "lower the learning rate, raise warmup_share, or look at these rows"
        raise ValueError(f"step {step}: {lost}{rows}; {remedy}")


def named(ids: list[str]) -> str:
    """The first eight of a step's rows, as an error names them."""
    more = ", ..." if len(ids) > 8 else ""
    return f" on rows {', '.join(ids[:8])}{more}"
