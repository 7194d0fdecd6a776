"""Checkpoints of a training that may be killed: by the clock, whole or not there, the last one and the best.

One of an 8B model under ZeRO-3 is about 128 GB. So the next waits until runtime.checkpoint_minutes have passed, and
until the last one's price is at most 5 % of the time since. When they are written changes no result.
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

LISTED = "complete.json"
"""What a whole checkpoint holds: its files' sizes in bytes."""
SHARE = 0.05
"""Of a training's time, at most, for its checkpoints."""


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


class Clock:
    """When a checkpoint is due; times in seconds, of one clock."""

    def __init__(self, minutes: float, now: float) -> None:
        self.every, self.last, self.price = 60 * minutes, now, 0.0

    def is_due(self, now: float) -> bool:
        return now - self.last >= max(self.every, self.price / SHARE)

    def saved(self, began: float, ended: float) -> None:
        self.last, self.price = ended, ended - began


def keeper(minutes: float | None) -> Any:
    """The trainer's callback; None for `minutes` writes none but those that validation asks for."""
    import torch
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.clock, self.spent, self.began = Clock(minutes or 0.0, time.monotonic()), [], 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            is_last = state.global_step >= state.max_steps
            if minutes is not None and not is_last and agreed(self.clock.is_due(time.monotonic()), args.device):
                control.should_save = True
            # transformers saves at the end too, optimiser and all, of what `harness.save` is about to write
            if is_last and not args.load_best_model_at_end:
                control.should_save = False
            self.began = time.monotonic()

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if torch.distributed.is_initialized():
                torch.distributed.barrier()  # every process has written its part
            if state.is_world_process_zero and folder.exists():
                finish(folder, f"checkpoint-{state.best_global_step}")
            self.clock.saved(self.began, time.monotonic())
            self.spent.append(self.clock.price)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if sum(self.spent) > 60 and state.is_world_process_zero:
                print(f"checkpoints: {len(self.spent)}, {sum(self.spent) / 60:.1f} minutes of the training", flush=True)

    return Keeper()


def agreed(mine: bool, device: Any) -> bool:
    """What the first process says, on every process: clocks differ, and all must save or none."""
    import torch

    if not torch.distributed.is_initialized():
        return mine
    said = torch.tensor([float(mine)], device=device)
    torch.distributed.broadcast(said, 0)
    return bool(said.item())
