"""Where `stages/rows.py` keeps the chunks of a run, named by all that decides them: a run that was killed finds its
own, never a stranger's.

STAGE_HOME  the folder that survives; the chunks are in rows/ of it
STAGE_KEY   a hash of the stage's code and packages, the params it reads, and what it reads. `runtime` is not in it
"""

import operator
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.guard import fingerprint, scratch
from stages.guard.params import Params


def keys_read(stage: str, root: Path) -> set[str]:
    """Dotted params.yaml keys that a stage's closure reads as `params.a.b`, `params.runtime` left out; a section
    handed on whole counts whole.
    """
    return {leaf for name in fingerprint.params_read(stage, root) for leaf in section(name)}


def section(name: str) -> set[str]:
    """A section's leaves, or the leaf itself."""
    fields = (
        getattr(Params.model_fields[name].annotation, "model_fields", None) if name in Params.model_fields else None
    )
    return {f"{name}.{leaf}" for leaf in fields} if fields else {name}


def key(stage: str, reads: dict[str, Any], params: Any, root: Path) -> str:
    """16 hex digits over all that decides what the stage computes of a row; `reads` are its arguments that it reads."""
    settings = {name: repr(operator.attrgetter(name)(params)) for name in sorted(keys_read(stage, root))}
    return scratch.identity(stage, reads, settings, root)


@contextmanager
def kept(name: str, home: Path) -> Iterator[bool]:
    """Name the place for this run's chunks, and remove them once its outputs are published, at the end of the block;
    true where an earlier run left some.

    A run that fails leaves them for the next. So does one that is killed.
    """
    os.environ |= {"STAGE_HOME": str(home.absolute()), "STAGE_KEY": name}
    place = home / "rows" / name
    try:
        yield place.exists()
    finally:
        del os.environ["STAGE_KEY"]
    shutil.rmtree(place, ignore_errors=True)
