"""A journal of what every stage cost, for the forecast of the next one (`python -m stages.tools.plan`).

One JSON line for each run, in spent.jsonl in the home of what survives (scratch.py): in no output and in no key. It
tells what the run was of (rows and tokens of its tables, shapes of its models, the params it read), not what the
result was.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from stages.guard import facts, options

JOURNAL = "spent.jsonl"


@cache
def gpus() -> tuple[tuple[str, int], ...]:
    """Name and bytes of memory of every GPU that this process may use, as nvidia-smi tells them."""
    if shutil.which("nvidia-smi") is None:
        return ()
    asked = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        asked.append(f"--id={os.environ['CUDA_VISIBLE_DEVICES']}")
    told = subprocess.run(asked, capture_output=True, encoding="utf-8", timeout=10)
    lines = [line.rpartition(",") for line in told.stdout.splitlines()] if not told.returncode else []
    return tuple((name.strip(), int(mib) * 2**20) for name, _, mib in lines if mib.strip().isdigit())


def device(on_gpu: bool) -> str:
    """What computes here: the GPU's name, or the processor's and how many of its cores are ours."""
    if on_gpu and gpus():
        return gpus()[0][0]
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "processor")
    return f"{name} x {len(os.sched_getaffinity(0))}"


def seconds() -> float:
    """Since this process began; it stays the same when the guard replaces itself by exec."""
    began = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")


def peaks() -> dict[str, float]:
    """The most memory that one process held, in GiB; of a GPU as torch tells it, where the stage used torch here."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    found = {"memory_gib": max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20}
    torch: Any = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        found["gpu_gib"] = torch.cuda.max_memory_reserved() / 2**30
    return {name: round(value, 3) for name, value in found.items()}


def once(named: dict[str, Any]) -> dict[str, Any]:
    """Without the options that name again what an earlier one does."""
    values = list(named.values())
    return {name: value for place, (name, value) in enumerate(named.items()) if value not in values[:place]}


def told(arguments: dict[str, Any]) -> dict[str, list[dict[str, Any] | None]]:
    """Of every path among a stage's arguments, once, its table or its model's shape, None for another kind."""
    paths = once({name: options.paths(value) for name, value in arguments.items()})
    found = {name: [facts.shape(path) or facts.table(path) for path in each] for name, each in paths.items()}
    return {name: [fact._asdict() if fact else None for fact in each] for name, each in found.items() if any(each)}


class Run(NamedTuple):
    """What the guard knows of a run that ended: the stage with its arguments, the params it read, the layout, and
    whether it computes with models.
    """

    stage: str
    arguments: dict[str, Any]
    writes: list[str]
    params: dict[str, Any]
    runtime: Any
    dear: bool


def note(run: Run, home: Path) -> None:
    """Add a line about a run; nothing where the disk or a file does not let us, since the result is
    there already and worth more than its account.
    """
    try:
        line = {
            "stage": run.stage,
            "outs": [str(path) for name in run.writes for path in options.paths(run.arguments[name])],
            "device": device(run.dear),
            "seconds": round(seconds(), 2),
            **peaks(),
            "files": told(run.arguments),
            "params": {name: run.params[name] for name in sorted(run.params)},
            "runtime": run.runtime.model_dump(),
        }
        home.mkdir(parents=True, exist_ok=True)
        with (home / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=plain) + "\n")
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return


def plain(value: Any) -> Any:
    """A section of params as json can write it."""
    return value.model_dump() if hasattr(value, "model_dump") else str(value)


def noted(home: Path) -> list[dict[str, Any]]:
    """The journal's last lines, older first: a megabyte of them, some twenty runs of the quickstart."""
    path = home / JOURNAL
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**20))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return [found for line in lines if (found := parsed(line))]


def parsed(line: str) -> dict[str, Any] | None:
    """None of a line that was cut, by a kill or at the beginning of the last megabyte."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
