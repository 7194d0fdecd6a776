"""The plan on a terminal of 120 columns: what cannot work, a line for each stage, the sums, what was assumed."""

from collections.abc import Iterable

from stages.tools.plan.changes import Verdict
from stages.tools.plan.devices import Device
from stages.tools.plan.forecast import Cost

HEADER = ("stage", "why", "tokens", "time", "GPU h", "memory", "disk", "by")
WIDTHS = (36, 42, 7, 7, 7, 7, 6, 1)


def lines(verdicts: dict[str, Verdict], costs: list[Cost], device: Device) -> Iterable[str]:
    """A line for each stage that would run, and the sums."""
    by_name = {cost.stage: cost for cost in costs}
    yield row(HEADER)
    for name, verdict in verdicts.items():
        if name in by_name:
            cost = by_name[name]
            yield row((name, why(verdict), *numbers([cost], device), cost.by[0]))
    yield row((f"all {len(costs)} stages, one by one", "", *numbers(costs, device), ""))


def row(cells: Iterable[str]) -> str:
    first, second, *rest = (cell[:width] for cell, width in zip(cells, WIDTHS, strict=True))
    numbers = [cell.rjust(width) for cell, width in zip(rest, WIDTHS[2:], strict=True)]
    return " ".join([first.ljust(WIDTHS[0]), second.ljust(WIDTHS[1]), *numbers]).rstrip()


def numbers(costs: list[Cost], device: Device) -> list[str]:
    """Tokens, time, GPU hours, memory of a device at most, disk."""
    hours = sum(cost.device_hours for cost in costs) if device.is_gpu else 0.0
    return [
        amount(sum(cost.work.tokens for cost in costs)),
        span(sum(cost.seconds for cost in costs)),
        f"{hours:.1f}" if hours else "",
        gib(max((cost.memory for cost in costs if cost.work.devices or len(costs) == 1), default=0.0)),
        gib(sum(cost.outputs for cost in costs)),
    ]


def why(verdict: Verdict) -> str:
    """Its first reason, and how many more there are."""
    told = verdict.own or [f"{verdict.follows[0]} is made anew"]
    more = f" (+{len(told) - 1})" if len(told) > 1 else ""
    room = WIDTHS[1] - len(more)
    return (told[0] if len(told[0]) <= room else f"{told[0][: room - 3]}...") + more


def amount(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}" if number else ""


def span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if unit != "min" else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def gib(size: float) -> str:
    number = size / 2**30
    return f"{number:.1f}G" if number >= 0.05 else ""
