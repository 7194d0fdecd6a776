"""What computes, and how fast: seconds of a stage from earlier runs here, else from the device's data sheet.

Source  the makers' data sheets: dense products in bfloat16 and float32 without TF32, memory and its bandwidth
"""

import os
import re
import time
from statistics import median
from typing import Any, NamedTuple

from stages.guard import facts, memory, spent
from stages.guard.facts import Shape, Table
from stages.guard.feasible import machine
from stages.tools.plan import work
from stages.tools.plan.work import Case, Work


class Device(NamedTuple):
    """FLOP/s in either dtype, bytes of memory, bytes/s; how much of the peak a stage reaches, and seconds until it
    begins, by kind of work.
    """

    name: str
    flops: dict[str, float]
    memory: float
    bandwidth: float
    reached: dict[str, float]
    start: dict[str, float]
    is_gpu: bool
    is_named: bool  # on the command line, so perhaps not here


GPU_REACHED = {"train": 0.35, "score": 0.4, "sample": 0.4, "stream": 0.6}
"""Shares of the peak that we assume of a GPU; `stream` is of the bandwidth, while tokens are written one by one."""
GPU_START = {"train": 40.0, "score": 25.0, "sample": 75.0, "bring": 15.0, "rows": 1.0}
CPU_REACHED = {"train": 0.5, "score": 0.8, "sample": 0.5, "stream": 1.0}
"""Of what numpy reaches on this processor. On the quickstart it was 0.62, 0.9 and 0.6 on 2026-11-27, and 0.4, 0.72 and
0.4 on 2026-11-30.
"""
CPU_START = {"train": 9.0, "score": 6.0, "sample": 17.0, "bring": 14.0, "rows": 1.0}
GPUS = {
    "a100-40g": (312e12, 19.5e12, 40e9, 1.555e12),
    "a100-80g": (312e12, 19.5e12, 80e9, 2.039e12),
    "h100": (989e12, 67e12, 80e9, 3.35e12),
    "h200": (989e12, 67e12, 141e9, 4.8e12),
    "l40s": (362e12, 91.6e12, 48e9, 0.864e12),
    "l4": (121e12, 30.3e12, 24e9, 0.3e12),
    "rtx-4090": (165e12, 82.6e12, 24e9, 1.008e12),
}
"""bfloat16 and float32 FLOP/s, bytes, bytes/s. H100 and H200 are the SXM ones."""
WORDS = {"a100": ("a100-40g", "a100-80g"), "h100": ("h100",), "h200": ("h200",), "l40s": ("l40s",), "l4": ("l4",),
         "4090": ("rtx-4090",)}  # fmt: skip
"""Parts of the names that nvidia-smi tells; of several the one with the nearest memory."""
PASS = 0.03  # seconds of a forward pass over the few rows of one prompt, on a processor and, by launches, on a GPU
ROWS_PER_SECOND = 15_000  # of a stage without a model: half of what `prepare` and `filter` made of a million rows
DISK, READ = 100e6, 1e9  # bytes/s at which a model is brought and written, and is read
MEMORY_BANDWIDTH = 20e9  # bytes/s of a processor


def gpu(name: str) -> Device:
    """By its name on the command line."""
    half, single, size, bandwidth = GPUS[name]
    return Device(name, {"bfloat16": half, "float32": single}, size, bandwidth, GPU_REACHED, GPU_START, True, True)


def here(threads: int | None) -> Device:
    """The GPU of this machine, or its processor. Raises ValueError for a GPU whose data sheet is not among GPUS."""
    for told, size in spent.gpus()[:1]:
        names = next((names for part, names in WORDS.items() if re.search(rf"\b{part}\b", told.lower())), ())
        if not names:
            raise ValueError(f"no data sheet of {told} is known here; name a GPU like it, --gpu {', '.join(GPUS)}")
        best = min(names, key=lambda name: abs(GPUS[name][2] - size))
        return gpu(best)._replace(name=told, memory=size, is_named=False)
    cores = len(os.sched_getaffinity(0))
    peak = single_thread() * min(threads or cores, cores)
    flops = {"float32": peak, "bfloat16": peak / 4}  # without instructions for it a product is far slower
    return Device(spent.device(False), flops, machine(), MEMORY_BANDWIDTH, CPU_REACHED, CPU_START, False, False)


def single_thread() -> float:
    """FLOP/s of one core: the best of five products of two float32 matrices."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported
    import numpy as np

    side = 768
    one = np.ones((side, side), np.float32)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        np.matmul(one, one)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def at_once(of: Work, device: Device) -> int:
    """Devices that share a stage's work; workers on a processor share its cores."""
    return max(1, of.devices) if device.is_gpu else 1


def by_data_sheet(of: Work, case: Case, device: Device) -> float:
    """Seconds of a stage by roofline."""
    dtype = case.params["dtype"]
    weights = sum(map(facts.weights, case.shapes.values())) * facts.DTYPE_BYTES[dtype]
    begin = device.start[of.kind] + weights / (DISK if of.kind == "bring" else READ)
    if of.kind in ("bring", "rows"):
        return begin + of.rows / ROWS_PER_SECOND
    computing = of.flop / (device.flops[dtype] * device.reached[of.kind] * at_once(of, device))
    if of.kind == "sample":
        return begin + max(computing, streaming(of, case, device))
    return begin + computing + of.passes * PASS


def streaming(of: Work, case: Case, device: Device) -> float:
    """Seconds that an engine reads weights, and the keys and values of all that is in flight, for each token."""
    shape = next(case.shapes[name] for name in ("policy", "model") if name in case.shapes)  # model: a referee
    made = work.first(case, "candidates", "responses", "answers")
    each = facts.DTYPE_BYTES[case.params["dtype"]]
    flying = max(1, min(case.runtime["engine_sequences"], made.rows))
    cached = flying * (made.prompt + made.answer / 2) * memory.cache_per_token(shape, each)
    step = (facts.weights(shape) * each + cached) / (device.bandwidth * device.reached["stream"] * at_once(of, device))
    return of.tokens / flying * step


class Past(NamedTuple):
    """A run in the journal: what it was of, on which device, how long, and the most memory that it held."""

    case: Case
    device: str
    seconds: float
    memory: float


def past(line: dict[str, Any]) -> Past:
    """A line of the journal (stages/guard/spent.py)."""
    told = {name: each[0] for name, each in line["files"].items() if each[0]}
    shapes = {name: Shape(**fact) for name, fact in told.items() if "layers" in fact}
    tables = {name: Table(**fact) for name, fact in told.items() if "rows" in fact}
    case = Case(line["stage"], tables, shapes, line["params"], line["runtime"])
    return Past(case, line["device"], line["seconds"], line.get("gpu_gib", line["memory_gib"]) * 2**30)


def alike(case: Case, device: Device, journal: list[Past]) -> list[Past]:
    """The last five runs of the same stage here in this dtype, of models of the same sizes if there are any."""
    dtype = case.params["dtype"]
    seen = [run for run in journal if run.case.module == case.module and run.device == device.name]
    seen = [run for run in seen if run.case.params.get("dtype", dtype) == dtype]
    return ([run for run in seen if sizes(run.case) == sizes(case)] or seen)[-5:]


def sizes(case: Case) -> list[int]:
    return sorted(map(facts.weights, case.shapes.values()))


def measured(of: Work, runs: list[Past], device: Device) -> float | None:
    """Seconds at the median rate of earlier runs; None where there was none that tells. A start is taken as the kind's,
    or as half of a shorter run.
    """
    rates = [found for run in runs if (found := rate(run, device))]
    if not rates:
        return None
    start, each = (median(values) for values in zip(*rates, strict=True))
    return start + each * of.units / at_once(of, device)


def rate(run: Past, device: Device) -> tuple[float, float] | None:
    """A run's start in seconds, and the seconds of one device for a unit of its work; None where the code of that day
    read other params.
    """
    try:
        was = work.of(run.case)
    except (KeyError, StopIteration):
        return None
    if not was.units:
        return run.seconds, 0.0
    start = min(device.start[was.kind], run.seconds / 2)
    return start, (run.seconds - start) * at_once(was, device) / was.units
