"""A folder where a training stage leaves checkpoints, named by all that decides its result: a killed run goes on from
its own, never from a stranger's.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.guard import fingerprint, integrity, options

HOME = Path(".scratch/training")


def section(stage: str) -> str:
    """The section of params.yaml that a stage is named after: `dpo` of `training.dpo`."""
    return stage.rpartition(".")[2]


def name(stage: str, reads: dict[str, Any], params: Any, root: Path) -> str:
    """16 hex digits over the stage's code and packages, what it reads, its params, and the layout, which decides a
    sum's last bits.
    """
    known = integrity.recorded(root)  # the guard has compared these with the files: a model is not read again
    digests = {
        key: [known.get(str(path)) or integrity.digest(path) for path in options.paths(value)]
        for key, value in reads.items()
    }
    words = {key: str(value) for key, value in reads.items()}
    settings = [getattr(params, section(stage)).model_dump(), params.dtype, params.seed, params.runtime.model_dump()]
    text = json.dumps([fingerprint.key(stage, root), digests, words, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def folder(stage: str, reads: dict[str, Any], params: Any, out: Path, root: Path) -> Iterator[None]:
    """STAGE_SCRATCH is the folder of this very run. Folders of other runs of the same output are removed; its own is,
    once the stage is done.
    """
    home = HOME / str(out).replace("/", "%")
    mine = home / name(stage, reads, params, root)
    for other in home.glob("*"):
        if other != mine:
            shutil.rmtree(other)
    mine.mkdir(parents=True, exist_ok=True)
    os.environ["STAGE_SCRATCH"] = str(mine)
    try:
        yield
    finally:
        del os.environ["STAGE_SCRATCH"]  # or what this process trains next would take these checkpoints for its own
    shutil.rmtree(home)
