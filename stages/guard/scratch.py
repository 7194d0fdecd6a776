"""What must survive a run that is killed: the home of it, and the folder of a training stage's checkpoints, named by
all that decides its result, so that a killed run goes on from its own, never from a stranger's.

STAGE_HOME     the home, for a judge's journal, labels to fill in, finished rows
STAGE_SCRATCH  the checkpoints of this very run
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.guard import fingerprint, integrity, options

EXPERIMENTS = (".dvc", "tmp", "exps")
OTHERS = {
    *("report_to", "checkpoint_minutes", "forward_batch_tokens", "judge_url", "judge_connections"),
    *("engine_sequences", "engine_memory_share", "engine_cpu_cache_gib", "workers", "gpus_per_worker"),
}
"""What of `runtime` no training's sums depend on. All else counts, a value that is new in params.yaml too."""
WEEK = 7 * 24 * 3600  # seconds that the checkpoints of a killed experiment wait for somebody to run it again


def home(root: Path) -> Path:
    """The `.scratch` of the repository that a person works in.

    DVC runs an experiment of its queue, or with --temp, in a folder under that repository's .dvc/tmp/exps and leaves it
    for good, killed or not; the next one gets another.
    """
    holder = next((path for path in root.parents if path.parts[-3:] == EXPERIMENTS), None)
    repository = holder.parents[2] if holder else root
    return repository / ".scratch"


def section(stage: str) -> str:
    """The section of params.yaml that a stage is named after: `dpo` of `training.dpo`."""
    return stage.rpartition(".")[2]


def identity(stage: str, reads: dict[str, Any], settings: Any, root: Path) -> str:
    """16 hex digits over the stage's code and packages, what it reads (`reads` are its arguments that name it), and the
    settings, which json can write.
    """
    known = integrity.recorded(root)  # the guard has compared these with the files: a model is not read again
    digests = {
        key: [known.get(str(path)) or integrity.digest(path) for path in options.paths(value)]
        for key, value in reads.items()
    }
    words = {key: str(value) for key, value in reads.items()}
    text = json.dumps([fingerprint.key(stage, root), digests, words, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def name(stage: str, reads: dict[str, Any], params: Any, root: Path) -> str:
    """What a training is: its section counts whole, and the layout, which decides a sum's last bits."""
    layout = params.runtime.model_dump(exclude=OTHERS)
    settings = [getattr(params, section(stage)).model_dump(), params.dtype, params.seed, layout]
    return identity(stage, reads, settings, root)


@contextmanager
def folder(stage: str, reads: dict[str, Any], params: Any, out: Path, root: Path) -> Iterator[bool]:
    """STAGE_SCRATCH is the folder of this very run, removed once the stage is done; true where an earlier run left
    something in it.

    In the workspace the folders of other runs of the same output go at once: they are of settings that somebody left.
    Experiments run side by side, so theirs stay for a week. Where another experiment trains the very same there is no
    STAGE_SCRATCH: it keeps no checkpoints, and computes the same.
    """
    alone = home(root).parent == root
    shelf = home(root) / ("training" if alone else "experiments") / str(out).replace("/", "%")
    mine = shelf / name(stage, reads, params, root)
    for other in shelf.glob("*"):
        if other != mine and (alone or time.time() - other.stat().st_mtime > WEEK):
            shutil.rmtree(other)
    with held(mine) as is_free:
        if not is_free:
            yield False
            return
        os.environ["STAGE_SCRATCH"] = str(mine)
        try:
            yield any(mine.iterdir())
        finally:
            del os.environ["STAGE_SCRATCH"]  # or what this process trains next would take these checkpoints for its own
        shutil.rmtree(shelf if alone else mine)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Make a folder and lock it as long as this process lives; False where another has it."""
    path.mkdir(parents=True, exist_ok=True)
    folder = os.open(path, os.O_RDONLY)
    try:
        yield is_locked(folder)
    finally:
        os.close(folder)


def is_locked(folder: int) -> bool:
    """True if the lock is ours now."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
