"""Which policies there are, what they are called, and where their numbers stand.

`params.iterations` decides: pi0, offline, then what each iteration makes. A folder of metrics may hold files of an
iteration that was removed since; nobody reads them.
"""

import json
from pathlib import Path
from typing import Any

NAMES = {"pi0": "π0 (SFT)", "offline": "offline DPO"}


def label(policy: str) -> str:
    """A policy's name for people."""
    return NAMES.get(policy, f"π{policy.removeprefix('pi')}")


def names(iterations: list[Any]) -> list[str]:
    """All policies, in the order in which they are made."""
    return ["pi0", "offline", *(step.makes for step in iterations)]


def read(folder: Path, name: str) -> dict[str, Any]:
    """One file of a folder of metrics. Raises ValueError where it is missing."""
    file = folder / f"{name}.json"
    if not file.is_file():
        raise ValueError(f"{file} is missing, and iterations in params.yaml need it; run `dvc --wait-for-lock repro`")
    return json.loads(file.read_text(encoding="utf-8"))


def table(iterations: list[Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Policy -> what `evaluate` found of it. Raises ValueError where a policy's file is missing."""
    return {name: read(folder, name)[name] for name in names(iterations)}
