"""What watches a training: a bar with the loss, its speed, and the stop where a number is lost."""

import math
import resource
import time
from collections.abc import Callable
from typing import Any

EXPLODED = 1e3
"""How many times its first step's a gradient norm, before clipping, may be. The first may be any number: the
quickstart's lie between 4 and 16, SPPO's at a small beta over 1e4.
"""
RowsOf = Callable[[int], list[str]]
"""The ids of the rows of an optimiser step."""


def callbacks(rows_of: RowsOf | None) -> list[Any]:
    """A bar with the loss behind it, in place of a line per step; and what stops a run whose numbers are lost."""
    from transformers import ProgressCallback, TrainerCallback

    class Bar(ProgressCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if self.training_bar is not None and "loss" in (logs or {}):
                self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")

    class Watch(TrainerCallback):
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
