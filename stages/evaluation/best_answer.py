"""How often a signal puts a right answer first: RewardBench 2.

A row is a prompt with `rewards`, the signal's of its answers, of which the first `right` are right.

Source  arXiv 2506.01937, section 4 and appendix; allenai/reward-bench, rewardbench/utils.py: an answer among k that
        share the first place counts 1/k; of the subset Ties, six tenths are accuracy and four are margins
"""

from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from stages.evaluation import agreement

TIES = "Ties"


class Margins(NamedTuple):
    """Of one prompt with several right answers.

    right     whether the worst right answer is above the best wrong one
    between   the best right answer's reward less the worst right one's
    above     the worst right answer's less the best wrong one's
    """

    right: bool
    between: float
    above: float


def first_place(row: dict) -> float:
    """The share of right answers among those with the highest reward."""
    best = max(row["rewards"])
    firsts = [place for place, reward in enumerate(row["rewards"]) if reward == best]
    return sum(place < row["right"] for place in firsts) / len(firsts)


def margins(row: dict) -> Margins:
    right, wrong = row["rewards"][: row["right"]], row["rewards"][row["right"] :]
    above = min(right) - max(wrong)
    return Margins(above > 0, max(right) - min(right), above)


def ties(rows: list[dict]) -> float | None:
    """The score of the subset Ties, at most 1.01; None where no prompt is there in both of its forms, `ref:<n>` with
    one right answer and `tied:<n>` with several.
    """
    forms: dict[str, dict[str, Margins]] = {"ref": {}, "tied": {}}
    for row in rows:
        form, _, number = row["id"].partition(":")
        forms.get(form, {})[number] = margins(row)
    ref, tied = forms["ref"], forms["tied"]
    both = sorted(ref.keys() & tied.keys())
    if not both:
        return None
    between, above = (np.array([getattr(tied[number], name) for number in both]) for name in ("between", "above"))
    least = np.minimum(above, [ref[number].above for number in both])
    ratio = np.divide(least, between, out=np.zeros(len(both)), where=between > 0)
    closeness = np.where(between > 0, np.tanh(ratio - 1), 0.0)
    right = 0.3 * fmean(each.right for each in tied.values()) + 0.3 * fmean(each.right for each in ref.values())
    apart = 0.2 * float((above > between).mean()) + 0.2 * float((least > between).mean())
    return right + apart + 0.01 * float(closeness.mean())


def scores(rows: list[dict], confidence: float) -> dict[str, Any]:
    """Each subset's accuracy with its interval, that of Ties without one; `score`: the mean of the subsets."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["subset"], []).append(row)
    subsets = {
        name: agreement.accuracy([first_place(row) for row in group], confidence)
        for name, group in sorted(groups.items())
        if name != TIES
    }
    values, tied = [fact["accuracy"] for fact in subsets.values()], ties(groups.get(TIES, []))
    if tied is not None:
        values.append(tied)
    facts: dict[str, Any] = {"subsets": subsets, "prompts": len(rows)}
    if tied is not None:
        facts["ties"] = round(tied, 4)
    return facts | {"score": round(fmean(values), 4)} if values else facts
