"""Whether a signal is as right as it is sure of itself."""

import math
from statistics import fmean
from typing import Any

from stages.evaluation.agreement import right

BINS = 10
COMPARING = ("preference_model", "judge", "self_judge")
"""Signals whose reward under all_pairs is the mean probability of winning itself."""


def probability(row: dict, name: str, params: Any) -> float | None:
    """P(chosen is better) as the signal states it; None for a signal whose rewards are no log-odds."""
    if name == "longer" or (name == "implicit" and params.implicit.form != "ratio"):
        return None
    chosen, rejected = row["reward"]
    if name in COMPARING and params.pairwise.ranking == "all_pairs":
        return chosen
    return 1 / (1 + math.exp(-max(-500.0, chosen - rejected)))


def reliability(stated: list[float]) -> list[dict[str, float]]:
    """Stated probabilities that the chosen answer wins, by the confidence in the verdict: mean confidence and share
    right of each of ten bins.
    """
    bins: dict[int, list[tuple[float, float]]] = {}
    for p in stated:
        confidence = max(p, 1 - p)
        bins.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, right(p, 0.5)))
    return [
        {"confidence": fmean(c for c, _ in bins[k]), "right": fmean(r for _, r in bins[k]), "pairs": len(bins[k])}
        for k in sorted(bins)
    ]


def error(bins: list[dict[str, float]]) -> float:
    """How far the share of right verdicts is from the confidence in them, in the mean over pairs."""
    off = sum(abs(b["confidence"] - b["right"]) * b["pairs"] for b in bins)
    return round(off / sum(b["pairs"] for b in bins), 4)
