"""The pipeline's graph, as DVC sees it."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from dvc.repo import Repo

VERDICTS = "metrics/stop/"
"""What `stop` writes, the same until a rule is broken: nothing follows from it in a run that is not stopped."""


def name_of(stage: Any) -> str:
    """A stage's name without the file it stands in: no name stands in both."""
    return stage.addressing.rpartition(":")[2]


def stages(root: Path) -> dict[str, Any]:
    """The stages of dvc.yaml, and those of signals/dvc.yaml that they ask for, by name, each after those it reads
    from.
    """
    found = {
        name_of(stage): stage
        for stage in Repo(str(root)).stage.collect(str(root / "dvc.yaml"), with_deps=True)
        if stage.cmd
    }
    ordered: dict[str, Any] = {}
    while len(ordered) < len(found):
        made = {out for stage in ordered.values() for out in outs(stage)}
        still = {out for name, stage in found.items() if name not in ordered for out in outs(stage)} - made
        ordered |= {
            name: stage for name, stage in found.items() if name not in ordered and not still & set(deps(stage))
        }
    return ordered


def deps(stage: Any) -> list[str]:
    return [dep.def_path for dep in stage.deps if dep not in stage.params]


def outs(stage: Any) -> list[str]:
    return [out.def_path for out in stage.outs]


def downstream(graph: dict[str, Any], patterns: list[str]) -> set[str]:
    """The stages that a pattern names (`dpo*`, `rank@*`), and all that follow from them, a verdict's readers left out."""
    reached = {name for name in graph for pattern in patterns if fnmatch(name, pattern)}
    for name, stage in graph.items():
        if {out for other in reached for out in outs(graph[other]) if not out.startswith(VERDICTS)} & set(deps(stage)):
            reached.add(name)
    return reached


def module_of(stage: Any) -> str:
    return stage.cmd.split()[3]
