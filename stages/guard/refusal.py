"""What a user is told in one line: the guard's own refusals, and the errors of the data, the settings and the disk.

A traceback is a bug.
"""

import errno
import shutil
import traceback
from pathlib import Path

STAGES = Path(__file__).resolve().parents[1]
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
PARTED = {"DistBackendError", "DistNetworkError", "DistStoreError"}
LESS_MEMORY = (
    "for a training lower runtime.micro_batch_rows, for scoring runtime.forward_batch_tokens, for sampling "
    "runtime.engine_memory_share; no result depends on them"
)


class Refusal(Exception):
    """The guard's own refusals; the message is one line for the user."""


def explain(error: BaseException) -> str | None:
    """One line for an error of the data, the settings, the disk or the GPU's memory; None for a bug, which deserves its
    traceback.
    """
    if getattr(error, "errno", None) in DISK_FULL or "No space left" in str(error):
        free = shutil.disk_usage(".").free / 2**30
        return f"the disk is full ({free:.1f} GiB free here); free some space, then run the same command again"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which most stages never import
        told = " ".join(str(error).split())[:120]
        return f"the GPU's memory is full ({told}); {LESS_MEMORY}"
    if type(error).__name__ in PARTED or "Timed out waiting" in str(error):  # NCCL's and gloo's
        told = " ".join(str(error).split())[:160]
        return f"the training's processes lost each other ({told}); the first one that failed says why, above"
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and Path(frames[-1].filename).is_relative_to(STAGES)
    readable = isinstance(error, Refusal) or (ours and isinstance(error, ValueError | OSError))
    return " ".join(str(error).split()) if readable else None
