"""What each stage has cost here: the last run of everything that it made, the dearest stage first.

    python -m stages.tools.spent

Reads   the guard's journal (stages/guard/spent.py), which is no output: time and memory differ from run to run, and
        what a stage writes does not. A run that went on after a kill is not in it
Prints  a Markdown table: runs, seconds with their share of all, device hours (seconds times the GPUs or processes that
        compute at a time), the most memory that a process held, or a GPU where torch computed in that process
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from stages.guard import scratch, spent
from stages.tools.plan import devices, work


class Cost(NamedTuple):
    """Of a stage's last runs together."""

    runs: int
    seconds: float
    device_hours: float
    memory_gib: float


def last_runs(journal: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every output the line of the run that made it; a run is known by its first one."""
    return list({line["outs"][0]: line for line in journal if line["outs"]}.values())


def in_use(line: dict[str, Any]) -> int:
    """Devices that computed at a time; 1 for a run that did not write down what tells."""
    try:
        return work.of(devices.past(line).case).devices
    except (KeyError, StopIteration):
        return 1


def by_stage(lines: Iterable[dict[str, Any]]) -> dict[str, Cost]:
    """The dearest first."""
    found: dict[str, Cost] = {}
    for line in lines:
        was, seconds = found.get(line["stage"], Cost(0, 0.0, 0.0, 0.0)), line["seconds"]
        memory = max(was.memory_gib, line.get("gpu_gib", line["memory_gib"]))
        hours = was.device_hours + seconds * in_use(line) / 3600
        found[line["stage"]] = Cost(was.runs + 1, was.seconds + seconds, hours, memory)
    return dict(sorted(found.items(), key=lambda item: (-item[1].seconds, item[0])))


def table(costs: dict[str, Cost]) -> str:
    every = costs.values()
    total = sum(cost.seconds for cost in every)
    lines = ["| stage | runs | seconds | share | device hours | GiB |", "|---|---:|---:|---:|---:|---:|"]
    for name, cost in costs.items():
        told = f"{cost.seconds:,.1f} | {cost.seconds / total:.1%} | {cost.device_hours:.2f} | {cost.memory_gib:.1f}"
        lines.append(f"| `{name}` | {cost.runs} | {told} |")
    hours, memory = sum(cost.device_hours for cost in every), max(cost.memory_gib for cost in every)
    runs = sum(cost.runs for cost in every)
    return "\n".join([*lines, f"| all | {runs} | {total:,.1f} | 100% | {hours:.2f} | {memory:.1f} |"])


def main() -> None:
    lines = last_runs(spent.noted(scratch.home(Path.cwd())))
    if not lines:
        sys.exit("spent: no stage has run here; run `dvc --wait-for-lock repro`")
    print(f"on {', '.join(sorted({line['device'] for line in lines}))}\n\n{table(by_stage(lines))}")


if __name__ == "__main__":
    main()
