"""The pipeline's graph, as DVC expands dvc.yaml by params.yaml."""

import shlex
from pathlib import Path
from typing import Any, NamedTuple

VERDICTS = "data/stop/"
"""What `stop` writes, the same until a rule is broken: nothing follows from it in a run that is not stopped."""


class Stage(NamedTuple):
    """A stage: its name in dvc.yaml, its module, its options with their words, what it reads and writes, the keys it
    tracks by file, and whether DVC's cache holds all its outputs.
    """

    name: str
    command: str
    module: str
    words: dict[str, list[str]]
    deps: list[str]
    outs: list[str]
    tracked: dict[str, list[str]]
    cached: bool


def load(root: Path) -> tuple[list[Stage], list[str]]:
    """The stages, each behind those it reads from, and the kinds of links by which DVC's cache shares its files."""
    from dvc.repo import Repo

    repo = Repo(str(root))
    every: list[Any] = repo.index.stages
    links = repo.config["cache"].get("type") or ["reflink", "copy"]
    return ordered([described(stage) for stage in every if stage.cmd]), links


def described(stage: Any) -> Stage:
    words = shlex.split(stage.cmd)[3:]  # behind python -m stages.guard.run
    tracked: dict[str, list[str]] = {}
    for dep in stage.params:
        tracked.setdefault(dep.def_path, []).extend(dep.params)
    deps = [dep.def_path for dep in stage.deps if dep not in stage.params]
    outs = [out.def_path for out in stage.outs]
    return Stage(
        stage.name, stage.cmd, words[0], grouped(words[1:]), deps, outs, tracked, all(o.use_cache for o in stage.outs)
    )


def grouped(words: list[str]) -> dict[str, list[str]]:
    """`--name value value` to {name: [value, value]}."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word[2:]
            found[name] = []
        else:
            found[name].append(word)
    return found


def makers(stages: list[Stage]) -> dict[str, list[Stage]]:
    """The stages behind every path that a stage reads: one for an output, several for a folder that gathers metrics."""
    found: dict[str, list[Stage]] = {}
    for stage in stages:
        for out in stage.outs:
            found.setdefault(out, []).append(stage)
            found.setdefault(str(Path(out).parent), []).append(stage)
    return found


def ordered(stages: list[Stage]) -> list[Stage]:
    """Depth first, as dvc.yaml has them."""
    behind, seen, found = makers(stages), set(), []

    def visit(stage: Stage) -> None:
        if stage.name in seen:
            return
        seen.add(stage.name)
        for dep in stage.deps:
            for maker in behind.get(dep, []):
                visit(maker)
        found.append(stage)

    for stage in stages:
        visit(stage)
    return found
