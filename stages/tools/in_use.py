"""params.yaml with more in use for the time of a run, so that afterwards nothing is a stage that nobody asked for."""

import io
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.guard import params

PARAMS, BEFORE = Path("params.yaml"), Path(".scratch/params.before.yaml")


def edited(text: str, edit: Callable[[Any], None]) -> str:
    """The text of params.yaml after an edit of its tree; comments stay."""
    yaml, out = YAML(), io.StringIO()
    yaml.width = 200
    tree = yaml.load(text)
    edit(tree)
    yaml.dump(tree, out)
    return out.getvalue()


def end(*_: Any) -> None:
    """Of a SIGTERM: so that `finally` is reached."""
    sys.exit(143)


@contextmanager
def in_use(edit: Callable[[Any], None]) -> Iterator[params.Params]:
    """What params.yaml says while the edit stands.

    It is put back as it was, unless it was edited meanwhile, which is said. The text from before lies in .scratch, from
    where the next call takes it if this one is killed. Raises ValueError for an edit that breaks a rule.
    """
    if BEFORE.exists():
        PARAMS.write_bytes(BEFORE.read_bytes())
        print(f"params.yaml is again what it was before a run that was killed ({BEFORE})", flush=True)
    before = PARAMS.read_text(encoding="utf-8")
    params.load(PARAMS)
    now = edited(before, edit)
    BEFORE.parent.mkdir(exist_ok=True)
    BEFORE.write_text(before, encoding="utf-8")
    old = signal.signal(signal.SIGTERM, end)
    try:
        PARAMS.write_text(now, encoding="utf-8")
        yield params.load(PARAMS)
    finally:
        signal.signal(signal.SIGTERM, old)
        if PARAMS.read_text(encoding="utf-8") == now:
            PARAMS.write_text(before, encoding="utf-8")
        else:
            print("params.yaml was edited during the run and stays so; what the run put in use is still there")
        BEFORE.unlink()


def repro(targets: list[str]) -> int:
    """What `dvc repro` of these stages ends with."""
    return subprocess.run(["dvc", "--wait-for-lock", "repro", "--quiet", *targets]).returncode
