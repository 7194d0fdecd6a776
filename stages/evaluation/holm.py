"""Several comparisons at once: p-values corrected for their number, and what may then be called a difference.

Source  Holm 1979, by statsmodels
"""

from typing import Any

from statsmodels.stats.multitest import multipletests


def corrected(found: dict[str, dict[str, Any]], confidence: float) -> dict[str, float]:
    """Comparison -> its corrected p; each has `p`."""
    ps: Any = multipletests([facts["p"] for facts in found.values()], 1 - confidence, method="holm")[1]
    return dict(zip(found, map(float, ps), strict=True))


def judged(found: dict[str, dict[str, Any]], confidence: float) -> dict[str, dict[str, Any]]:
    """The differences with `p_holm` and a verdict on each."""
    for name, p in corrected(found, confidence).items():
        facts = found[name]
        sign = "higher" if facts["difference"] > 0 else "lower"
        verdict = sign if p < 1 - confidence else "no difference seen"
        facts |= {"p": round(facts["p"], 4), "p_holm": round(p, 4), "verdict": verdict}
    return found
