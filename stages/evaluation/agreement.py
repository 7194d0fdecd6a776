"""How often a signal is right: of pairs with labels, by part, against r*, and on RewardBench.

A row is a pair with `reward`, the signal's of (chosen, rejected).
"""

import math
from statistics import fmean
from typing import Any

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from stages.evaluation import reward_bench_sections
from stages.signals import annotator

RANGES = 4


def right(first: float, second: float) -> float:
    """1 if the first, which should be higher, is; a half for a tie."""
    return 0.5 if first == second else float(first > second)


def accuracy(hits: list[float], confidence: float) -> dict[str, Any]:
    """The share of hits with Wilson's interval, which stays within 0 and 1."""
    ends = proportion_confint(sum(hits), len(hits), alpha=1 - confidence, method="wilson")
    interval = [round(end, 4) for end in np.array(ends).tolist()]
    return {"accuracy": round(fmean(hits), 4), "interval": interval, "pairs": len(hits)}


def agreement(rows: list[dict], confidence: float) -> dict[str, Any]:
    """How often the signal prefers the chosen answer."""
    return accuracy([right(*row["reward"]) for row in rows], confidence)


def extra(row: dict) -> int:
    """By how many characters the chosen answer is the longer."""
    return len(row["chosen"][0]["content"]) - len(row["rejected"][0]["content"])


def longer(rows: list[dict], confidence: float) -> dict[str, Any]:
    """How often the longer answer is the chosen one."""
    return accuracy([right(extra(row), 0) for row in rows], confidence)


def binned(values: list[float]) -> list[tuple[float, float]]:
    """At most RANGES ranges with about as many values each, or one range per value where these are few."""
    distinct = sorted(set(values))
    if len(distinct) <= RANGES:
        return [(value, value) for value in distinct]
    parts = [part for part in np.array_split(np.array(sorted(values)), RANGES) if len(part)]
    lows = sorted({float(part[0]) for part in parts})
    return [(low, max(v for v in distinct if v < high)) for low, high in zip(lows, [*lows[1:], math.inf], strict=True)]


def by_source(rows: list[dict]) -> dict[str, list[dict]]:
    """The pairs of each set, where there are several."""
    sources = sorted({row["source"] for row in rows})
    if len(sources) == 1:
        return {}
    return {f"source {name}": [row for row in rows if row["source"] == name] for name in sources}


def by_range(rows: list[dict], name: str, values: list[float | None]) -> dict[str, list[dict]]:
    """The pairs of each range of a value, one for each row; those without a value are in none."""
    found = {}
    for low, high in binned([value for value in values if value is not None]):
        told = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        within = [value is not None and low <= value <= high for value in values]
        found[f"{name} {told}"] = [row for row, inside in zip(rows, within, strict=True) if inside]
    return found


def parts(rows: list[dict]) -> dict[str, list[dict]]:
    """The pairs of each set, of each margin, and of each difference of length, in characters."""
    margins = by_range(rows, "margin", [row["margin"] for row in rows])
    return by_source(rows) | margins | by_range(rows, "chosen longer by", [extra(row) for row in rows])


def gold(row: dict, side: str) -> float:
    """r* of one side of a pair."""
    return annotator.gold(row["prompt"], row[side][0]["content"], row[f"{side}_finished"])


def against_gold(rows: list[dict], confidence: float) -> dict[str, Any]:
    """Accuracy against the order of r*, the signal's and the labels' own, on the pairs where r* sees a difference."""
    mine, labels = [], []
    for row in rows:
        chosen, rejected = gold(row, "chosen"), gold(row, "rejected")
        if chosen != rejected:
            first, second = row["reward"] if chosen > rejected else reversed(row["reward"])
            mine.append(right(first, second))
            labels.append(float(chosen > rejected))
    if not mine:
        return {}
    return {"gold": accuracy(mine, confidence), "labels against gold": accuracy(labels, confidence)}


def on_bench(rows: list[dict], confidence: float) -> dict[str, Any]:
    """RewardBench by section and by subset."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["subset"], []).append(right(*row["reward"]))
    shares = {name: (fmean(hits), len(hits)) for name, hits in groups.items()}
    subsets = {name: accuracy(hits, confidence) for name, hits in sorted(groups.items())}
    return {"sections": reward_bench_sections.scores(shares), "subsets": subsets}
