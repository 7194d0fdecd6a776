"""Which locked packages decide what a stage computes: all that it imports and all that stands behind it, less those
that cannot touch a result.

Reads   requirements.lock, packages.yaml (the reviewed lists) and requires.yaml (what requires what, by `make lock`)

Nothing is asked of the installed environment, or a laptop and a GPU machine would invalidate each other's results.
Errors  ValueError for an import that is not locked; a package on neither list fails tests/test_fingerprint.py
"""

import importlib.metadata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

LOCK = Path("requirements.lock")
LISTS = Path("stages/guard/packages.yaml")
REQUIRES = Path("stages/guard/requires.yaml")


@cache
def lock(path: Path) -> dict[str, str]:
    """Package name to version."""
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return dict(line.split("==") for line in lines if "==" in line)


@cache
def builds(path: Path) -> set[str]:
    """Locked packages that not every machine has: their line ends in a tag, torch, cpu or gpu."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "#" in line]
    return {line.split("==")[0] for line in lines}


@cache
def lists(path: Path) -> dict[str, Any]:
    import yaml

    return yaml.load(path.read_text(encoding="utf-8"), yaml.CBaseLoader)


def members(groups: dict[str, str]) -> set[str]:
    """All packages of a list, whatever group they stand in."""
    return {name for names in groups.values() for name in names.split()}


def distributions(top: str, root: Path) -> list[str]:
    """The packages that `import <top>` may run: one, or the builds of one."""
    imported_as = lists(root / LISTS)["imported_as"]
    return imported_as.get(top, top.replace("_", "-")).split()


def behind(names: Iterable[str], root: Path) -> set[str]:
    """The packages themselves, all that they require, and what they run when they find it."""
    requires, also_runs = lists(root / REQUIRES), lists(root / LISTS)["also_runs"]
    found: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += requires.get(name, "").split() + also_runs.get(name, "").split()
    return found


def counted(tops: Iterable[str], root: Path) -> dict[str, str]:
    """Name to version of the packages that decide what a module computes, given the packages that it imports.

    Raises ValueError for a package that is not locked.
    """
    versions = lock(root / LOCK)
    imported = {name for top in tops for name in distributions(top, root)}
    unlocked = sorted(imported - set(versions))
    if unlocked:
        raise ValueError(f"{unlocked[0]} is imported and not locked; add it to pyproject.toml and run `make lock`")
    counts = members(lists(root / LISTS)["counts"])
    return {name: versions[name] for name in sorted(behind(imported, root) & counts)}


def installed(name: str) -> str | None:
    """The version that is installed here, without its local part (`+cpu`); None where there is none."""
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def unlike_the_lock(tops: Iterable[str], root: Path) -> list[tuple[str, str, str | None]]:
    """Package, locked version and installed version, of each that counts for these imports and is not as locked.

    A package of another machine's build may be absent; of what is imported itself one build must be there.
    """
    tops = list(tops)
    tagged = builds(root / LOCK)
    unmet = [names for names in (distributions(top, root) for top in tops) if not any(map(installed, names))]
    wanted = {name for names in unmet for name in names}
    found = [(name, locked, installed(name)) for name, locked in counted(tops, root).items()]
    may_be_absent = tagged - wanted
    return [
        (name, locked, here) for name, locked, here in found if here != locked and (here or name not in may_be_absent)
    ]
