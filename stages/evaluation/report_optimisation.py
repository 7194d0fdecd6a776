"""The report's part on proxy against gold: by iteration, whether the gold reward rises where the proxy does.

`table` is policy -> {test: numbers of `evaluate`, ...}, in the order in which the policies were made.

Source  over-optimisation: Gao, Schulman, Hilton 2022, "Scaling Laws for Reward Model Overoptimization", arXiv
        2210.10760
"""

import itertools
from typing import Any, NamedTuple

from stages.evaluation import html_pages
from stages.evaluation.policy_metrics import label
from stages.evaluation.report_policies import bounded


class Step(NamedTuple):
    """What one iteration changed in the means of proxy and gold reward, and how often the two agree on whether its
    policy's answer is better than pi_0's.
    """

    name: str
    proxy: float
    gold: float
    agrees: str

    @property
    def over_optimised(self) -> bool:
        return self.proxy > 0 >= self.gold


def steps(table: dict[str, Any]) -> list[Step]:
    """From each policy to the one that its iteration makes; none where no gold reward is known."""
    iterates = [policy for policy in table if policy != "offline"]
    if "gold_reward" not in table["pi0"]["test"]:
        return []
    found = []
    for before, after in itertools.pairwise(iterates):
        old, new = table[before]["test"], table[after]["test"]
        proxy, gold = (round(new[name] - old[name], 4) for name in ("proxy_reward", "gold_reward"))
        name = f"{label(before).split()[0]} to {label(after)}"
        found.append(Step(name, proxy, gold, bounded(new, "proxy_agrees", ".2f")))
    return found


def sentence(found: list[Step]) -> str:
    """Where the proxy rises and the gold reward does not; empty where no gold reward is known."""
    if not found:
        return ""
    if over := [f"{step.name} ({step.proxy:+.2f}, gold {step.gold:+.2f})" for step in found if step.over_optimised]:
        return f"Over-optimised: the proxy rises and the gold reward does not from {', from '.join(over)}."
    if not any(step.proxy > 0 for step in found):
        return "The proxy rises in no iteration."
    return "No over-optimisation is seen: wherever the proxy rises, the gold reward rises too."


def said(step: Step) -> str:
    if step.over_optimised:
        return "over-optimised"
    return "both rise" if step.proxy > 0 else "the proxy does not rise"


def optimisation(table: dict[str, Any], confidence: float) -> dict[str, Any]:
    found = steps(table)
    header = ["iteration", "proxy", "gold reward", "says", f"they agree [{html_pages.percent(confidence)}]"]
    rows = [[step.name, f"{step.proxy:+.2f}", f"{step.gold:+.2f}", said(step), step.agrees] for step in found]
    return {"header": header, "rows": rows, "sentence": sentence(found)}
