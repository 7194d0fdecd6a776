"""What a gain is over several seeds: mean, standard error, a paired test, and the claim's verdict.

On each seed two policies answer the same prompts; their difference there is one number, and seeds are independent runs.
So the paired test over seeds is Student's t of these differences against 0, with one degree less than seeds. It says
nothing of other prompts: those are the same on every seed.

Source  Student 1908 by scipy; several comparisons at once: holm.py
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from stages.evaluation import holm


def rounded(value: float) -> float:
    """To four significant digits, so that a small p does not become 0."""
    return float(f"{value:.4g}")


def spread(values: list[float]) -> dict[str, float]:
    """Mean over seeds, and its standard error."""
    return {"mean": rounded(float(np.mean(values))), "standard_error": rounded(float(stats.sem(values)))}


def tested(values: list[float], confidence: float) -> dict[str, Any]:
    """The mean of the seeds' differences with its interval, and the test of it against 0.

    Where every seed gave the same number there is no spread to test against: no t, and p is 1.
    """
    if np.ptp(values) == 0:
        return {"mean": values[0], "standard_error": 0.0, "interval": [values[0]] * 2, "t": None, "p": 1.0}
    found: Any = stats.ttest_1samp(values, 0.0)
    bounds = found.confidence_interval(confidence)
    interval = [rounded(float(bound)) for bound in bounds]
    return spread(values) | {"interval": interval, "t": rounded(found.statistic), "p": rounded(found.pvalue)}


def verdict(comparison: dict[str, Any], confidence: float) -> str:
    """higher, lower, not told apart; or not tested, where the seeds have no spread."""
    if comparison["t"] is None:
        return "not tested: every seed gave the same number"
    if comparison["p_holm"] >= 1 - confidence:
        return "not told apart"
    return "higher" if comparison["mean"] > 0 else "lower"


def compared(differences: Mapping[str, Sequence[Sequence[float]]], confidence: float) -> dict[str, dict[str, Any]]:
    """Comparison -> its test over seeds, corrected for their number, and a verdict.

    differences: what is compared -> of each seed the difference, and its own interval's ends.
    """
    found = {title: tested([value for value, *_ in each], confidence) for title, each in differences.items()}
    for title, p in holm.corrected(found, confidence).items():
        facts = found[title]
        facts["p_holm"] = rounded(p)
        facts["seeds"] = len(differences[title])
        facts["seeds_above_zero"] = sum(low > 0 for _, low, _ in differences[title])
        facts["verdict"] = verdict(facts, confidence)
    return found


def claim(found: dict[str, dict[str, Any]]) -> str:
    """One sentence on the claim, which is that every difference is above 0."""
    each = "; ".join(f"{title}: {facts['verdict']}" for title, facts in found.items())
    told = "holds" if all(facts["verdict"] == "higher" for facts in found.values()) else "does not hold"
    return f"the claim {told} ({each})"
