"""The report's part on the claim, that the online policy beats SFT and beats offline DPO: both comparisons with their
intervals, what these let one say, and how many prompts would show half as much.

Two comparisons are made, so each interval is widened to a confidence of 1 - (1 - c) / 2 (Bonferroni): both then hold
together with a confidence of c at least. `evaluate` keeps intervals at c alone; each of their arms is stretched by the
ratio of the two normal quantiles, as is right where means are normal.

Source  sample size of a paired comparison of means: (z_alpha + z_power)^2 (s / difference)^2, e.g. Card et al. 2020,
        "With Little Power Comes Great Responsibility", arXiv 2010.06595
"""

import math
from typing import Any, NamedTuple

from scipy import stats

from stages.evaluation import html_pages
from stages.evaluation.policy_metrics import label

COMPARISONS = 2
POWER = 0.8
OF_GOLD = {"pi0": "gain", "offline": "over_offline"}
OF_ANSWERS = {"pi0": "win_rate", "offline": "win_rate_over_offline"}
OF_THE_JUDGE = {"pi0": "judge_win_rate", "offline": "judge_over_offline"}
NEITHER_WAY = {"judge_win_rate": 0.5}  # what a comparison shows where there is no difference; 0 for all others
HELD, REFUTED, OPEN = "held", "refuted", "not told apart"


class Comparison(NamedTuple):
    """A difference of the online policy from another one, its interval at c, and the one that holds with the other
    comparison's.
    """

    over: str
    difference: float
    interval: list[float]
    joint: list[float]


def quantile(confidence: float) -> float:
    """How many standard errors a two-sided normal interval reaches to either side: 1.96 for 0.95."""
    return float(stats.norm.ppf((1 + confidence) / 2))


def joint_quantile(confidence: float) -> float:
    """The same of an interval that is one of COMPARISONS: 2.24 for 0.95."""
    return quantile(1 - (1 - confidence) / COMPARISONS)


def widened(middle: float, interval: list[float], confidence: float) -> list[float]:
    stretch = joint_quantile(confidence) / quantile(confidence)
    return [middle + stretch * (end - middle) for end in interval]


def comparisons(test: dict[str, Any], confidence: float) -> list[Comparison]:
    """Over SFT and over offline DPO, of the gold reward, or else of the judge's preference; none without either."""
    named = OF_GOLD if "gain" in test else OF_THE_JUDGE
    found = []
    for over, name in named.items():
        if name in test:
            neither = NEITHER_WAY.get(name, 0.0)
            interval = [end - neither for end in test[f"{name}_interval"]]
            difference = test[name] - neither
            found.append(Comparison(label(over), difference, interval, widened(difference, interval, confidence)))
    return found


def outcome(interval: list[float]) -> str:
    """What the interval of a difference says of the claim that it is above 0."""
    low, high = interval
    if low > 0:
        return HELD
    return REFUTED if high < 0 else OPEN


def verdict(policy: str, found: list[Comparison], confidence: float) -> str:
    """The whole claim's: held where both comparisons hold it, refuted where one refutes it."""
    if policy == "pi0":
        return "Not tested: no online policy was within the caps, π0 was selected."
    if not found:
        return "Not tested: there is no gold reward and no judge in this profile."
    by = {each.over: outcome(each.joint) for each in found}
    told = next((word for word in (REFUTED, OPEN) if word in by.values()), HELD)
    over = " and ".join(name for name, word in by.items() if word == told)
    words = {
        HELD: f"Held: {label(policy)} is better than {over}",
        REFUTED: f"Refuted: {label(policy)} is worse than {over}",
        OPEN: f"Not told apart: the difference of {label(policy)} from {over} may be 0",
    }
    return f"{words[told]}, by intervals that hold together with {html_pages.percent(confidence)}."


def wins(policy: str, test: dict[str, Any]) -> str:
    """How often an answer has the higher gold reward, which a mean does not say; empty where no gold is known."""
    if "win_rate" not in test:
        return ""
    told = []
    for over, name in OF_ANSWERS.items():
        low, high = test[f"{name}_interval"]
        told.append(f"{test[name]:.0%} over {label(over)} [{low:.0%}, {high:.0%}]")
    return f"Answer by answer, {label(policy)} wins {' and '.join(told)}"


def standard_error(each: Comparison, confidence: float) -> float:
    low, high = each.interval
    return (high - low) / (2 * quantile(confidence))


def detectable(each: Comparison, confidence: float) -> float:
    """The smallest true difference that as many prompts show with a probability of POWER."""
    quantiles = joint_quantile(confidence) + float(stats.norm.ppf(POWER))
    return quantiles * standard_error(each, confidence)


def prompts_for(difference: float, each: Comparison, prompts: int, confidence: float) -> int:
    """How many prompts would show that difference with a probability of POWER: the standard error falls by their
    root.
    """
    return math.ceil(prompts * (detectable(each, confidence) / difference) ** 2)


def told(interval: list[float]) -> str:
    low, high = interval
    return f"[{low:+.2f}, {high:+.2f}]"


def cells(each: Comparison, prompts: int, confidence: float) -> list[str]:
    """A comparison's row of the table; no number of prompts for a difference of 0 or an interval without width."""
    half, seen = abs(each.difference) / 2, detectable(each, confidence)
    needed = f"{prompts_for(half, each, prompts, confidence):,}" if half and seen else ""
    return [
        f"online over {each.over}",
        f"{each.difference:+.2f}",
        told(each.interval),
        told(each.joint),
        outcome(each.joint),
        f"{seen:.2f}",
        needed,
    ]


def claim(policy: str, test: dict[str, Any], confidence: float) -> dict[str, Any]:
    """The verdict and the table, without rows where nothing was compared; `test`: the selected policy's numbers."""
    found = [] if policy == "pi0" else comparisons(test, confidence)
    sure, power = html_pages.percent(confidence), html_pages.percent(POWER)
    return {
        "verdict": verdict(policy, found, confidence),
        "header": [
            "claim",
            "difference",
            f"its {sure} interval",
            f"both with {sure}",
            "says",
            f"seen at {power} power",
            "prompts for half",
        ],
        "wins": wins(policy, test),
        "rows": [cells(each, test["prompts"], confidence) for each in found],
        "comparisons": COMPARISONS,
        "power": power,
        "prompts": test["prompts"],
    }
