"""Plan before spending: which stages `dvc repro` would run and why, and what that takes.

    python -m stages.tools.plan [--gpu h100] [--pulled] [--json]

Reads   params.yaml, dvc.yaml, dvc.lock, the code and the files that are there; the journal of earlier runs
        (stages/guard/spent.py). Runs nothing, and works while a run is going on
--gpu   forecast for such GPUs, by their data sheets; else for what is here, by earlier runs where there were any
--pulled  as if all that dvc.lock records were here, as after `dvc pull`
Exits with 1 where something cannot work, and says what in one line
"""

import argparse
import json
import os
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from stages.guard import integrity, params, scratch, spent
from stages.guard.checks import ROOT
from stages.tools.plan import changes, devices, graph, published, refusals, table
from stages.tools.plan.changes import Verdict
from stages.tools.plan.devices import Device
from stages.tools.plan.flow import Flow
from stages.tools.plan.forecast import Cost, cost

OF_MEMORY = "memory: of one device, at most, for the longest rows; of a stage that needs none, of this machine"
DVC = 1.0  # seconds that DVC itself takes a stage: hashes, the cache, dvc.lock


class Plan(NamedTuple):
    device: Device
    verdicts: dict[str, Verdict]
    costs: list[Cost]
    refused: list[str]
    notes: list[str]


def made(root: Path, gpu: str | None, pulled: bool) -> Plan:
    """The plan of a repository. Raises ParamsError; ValueError for a GPU that nobody knows."""
    settings = params.load(root / "params.yaml")
    stages, links = graph.load(root)
    recorded = integrity.locked_stages(root)
    now = changes.Now(root, settings.model_dump(), recorded, pulled)
    verdicts = changes.verdicts(stages, now)
    running = {name for name, verdict in verdicts.items() if not verdict.restored}
    flow = Flow(root, stages, running, settings, recorded)
    device = devices.gpu(gpu) if gpu else devices.here(settings.runtime.threads)
    journal = [devices.past(line) for line in spent.noted(scratch.home(root))]
    costs = [cost(stage, flow, device, journal) for stage in stages if stage.name in running]
    copies = 1 if {"hardlink", "symlink"} & set(links) else 2
    refused = refusals.found(flow, stages, device, costs, copies)
    return Plan(device, verdicts, costs, refused, notes(flow, device, verdicts, costs, copies))


def notes(flow: Flow, device: Device, verdicts: dict[str, Verdict], costs: list[Cost], copies: int) -> list[str]:
    """What the figures take for granted, a line each."""
    told = [by_what(device, costs), *of_node(device, costs), OF_MEMORY, *tight(device, costs), of_disk(costs, copies)]
    if follows := [name for name, verdict in verdicts.items() if not verdict.own]:
        told.append(f"{len(follows)} stages only follow: one whose inputs come out with the same bytes does not run")
    if restored := [name for name, verdict in verdicts.items() if verdict.restored]:
        told.append(f"{len(restored)} stages are not run: DVC has in its cache what {restored[0]} and others wrote")
    told.append("what DVC has seen before, with the same params, code and inputs, it brings from its run-cache instead")
    return told + list(flow.assumed) + pins(flow)


def of_node(device: Device, costs: list[Cost]) -> list[str]:
    """What a node costs that is held for the whole run, while most stages use one GPU of it."""
    most = max((cost.work.devices for cost in costs), default=0)
    if not device.is_gpu or most < 2:
        return []
    hours, used = sum(cost.seconds for cost in costs) / 3600, sum(cost.device_hours for cost in costs)
    return [f"a node of {most} is held for {hours:.1f} h, {most * hours:.0f} GPU hours, of which {used:.0f} compute"]


def tight(device: Device, costs: list[Cost]) -> list[str]:
    """A stage whose longest rows may not fit, by a bound: no reason to refuse."""
    large = [cost for cost in costs if cost.work.devices and cost.memory > device.memory]
    remedy = "lower runtime.micro_batch_rows or forward_batch_tokens, or set gradient_checkpointing"
    if not large:
        return []
    most = max(large, key=lambda cost: cost.memory)
    sizes = f"{table.gib(most.memory)}iB, {device.name} has {table.gib(device.memory)}iB"
    return [f"{len(large)} stages may not fit, {most.stage} holds up to {sizes}; {remedy}"]


def of_disk(costs: list[Cost], copies: int) -> str:
    outputs, most = sum(cost.outputs for cost in costs), max((cost.checkpoints for cost in costs), default=0.0)
    kept = f", and up to {table.gib(most)}iB of checkpoints while a model trains" if most >= 2**30 else ""
    twice = ", once in the workspace and once in DVC's cache" if copies == 2 else ""
    of_dvc = f"DVC's own {DVC * len(costs):.0f} s are not counted"
    return f"disk: {table.gib(copies * outputs) or '0G'}iB{twice}{kept}; {of_dvc}"


def by_what(device: Device, costs: list[Cost]) -> str:
    """Where the times come from."""
    known = sum(cost.by == "measured" for cost in costs)
    teraflops = max(device.flops.values()) / 1e12
    parts = [f"{kind} {share:.0%}" for kind, share in device.reached.items() if kind != "stream"]
    sheet = f"by {teraflops:.3g} TFLOP/s of {device.name}, of which {', '.join(parts)} is reached"
    return f"times: m, of {known} stages, by earlier runs here; r, {sheet}"


def pins(flow: Flow) -> list[str]:
    """How many hub sets and models are not pinned yet."""
    raws = {words for stage in flow.made.values() for words in stage.words.get("raw", [])}
    number = sum(published.unpinned(flow.root / raw) for raw in raws)
    return [f"{number} hub data sets name no revision yet; python -m stages.tools.pin writes them"] if number else []


def as_json(plan: Plan) -> dict[str, Any]:
    """All figures in SI units, bytes, and seconds."""
    costs = {
        each.stage: {
            "own": plan.verdicts[each.stage].own,
            "follows": plan.verdicts[each.stage].follows,
            **each.work._asdict(),
            **{name: value for name, value in each._asdict().items() if name not in ("stage", "work")},
        }
        for each in plan.costs
    }
    return {"device": plan.device.name, "refused": plan.refused, "stages": costs, "notes": plan.notes}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.tools.plan", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpu", choices=list(devices.GPUS), help="forecast for such GPUs")
    parser.add_argument("--pulled", action="store_true", help="as after `dvc pull`")
    parser.add_argument("--json", action="store_true", help="all figures, for programs")
    asked = parser.parse_args()
    os.chdir(ROOT)
    try:
        plan = made(ROOT, asked.gpu, asked.pulled)
    except ValueError as error:
        sys.exit(f"plan: {error}")
    for line in plan.refused:
        print(f"plan: cannot work: {line}", file=sys.stderr, flush=True)
    if asked.json:
        print(json.dumps(as_json(plan), indent=2))
    else:
        wrapped = [line for note in plan.notes for line in textwrap.wrap(note, 118, subsequent_indent="  ")]
        print("\n".join([*table.lines(plan.verdicts, plan.costs, plan.device), "", *wrapped]))
    sys.exit(1 if plan.refused else 0)


if __name__ == "__main__":
    main()
