"""The pipeline's graph, as DVC sees it."""

import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from stages.tools.plan.graph import VERDICTS


def stages(root: Path) -> dict[str, Any]:
    """The stages of dvc.yaml by name, each after those it reads from."""
    every: list[Any] = Repo(str(root)).index.stages
    found = {stage.name: stage for stage in every if stage.cmd}
    ordered: dict[str, Any] = {}
    while len(ordered) < len(found):
        made = {out for stage in ordered.values() for out in outs(stage)}
        still = {out for name, stage in found.items() if name not in ordered for out in outs(stage)} - made
        ready = [name for name in found if name not in ordered and not read_of(found[name], still)]
        ordered |= {name: found[name] for name in ready}
    return ordered


def deps(stage: Any) -> list[str]:
    return [dep.def_path for dep in stage.deps if dep not in stage.params]


def outs(stage: Any) -> list[str]:
    return [out.def_path for out in stage.outs]


def read_of(stage: Any, paths: set[str]) -> set[str]:
    """Those of `paths` that the stage reads: its deps, and what lies in a folder that gathers metrics."""
    wanted = set(deps(stage))
    return {path for path in paths if path in wanted or str(Path(path).parent) in wanted}


def downstream(graph: dict[str, Any], patterns: list[str]) -> set[str]:
    """The stages that a pattern names (`dpo*`, `rank@*`), and all that follow from them, a verdict's readers left
    out.
    """
    reached = {name for name in graph for pattern in patterns if fnmatch(name, pattern)}
    for name, stage in graph.items():
        changed = {out for other in reached for out in outs(graph[other]) if not out.startswith(VERDICTS)}
        if read_of(stage, changed):
            reached.add(name)
    return reached


def words_of(stage: Any) -> list[str]:
    """The stage's module and its options, as the shell hands them over."""
    return shlex.split(stage.cmd)[3:]


def module_of(stage: Any) -> str:
    return words_of(stage)[0]
