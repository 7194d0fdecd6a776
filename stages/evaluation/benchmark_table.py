"""Set the policies side by side on one benchmark: each score with its interval, each policy against pi_0 on the same
questions, which is the alignment tax.

Reads   scores: a folder with one file of stages/benchmarks/grade.py for each policy; `name` of the entry in benchmarks
Writes  metrics: {policies: {policy: {metric: {value, interval}}}, over_pi0: {policy: {metric: difference, interval, p,
        p_holm, verdict, questions_for_5_points}}}; table: the same in Markdown; page: in HTML, with bars
Params  iterations, which policies there are; benchmarks.<name>, what was asked; evaluate.confidence
Source  a score's interval: Wilson 1927; for scores between 0 and 1 that are not both it is at most too wide. A paired
        difference's: Bonett and Price 2012, one question won and one lost added, so that no difference at all has an
        interval too; of scores that are shares, the normal one of the differences. Several policies at once: Holm 1979
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from stages.evaluation import benchmark_page, holm, policy_metrics

POWER, POINTS = 0.8, 0.05
HEADLINE = {"arc_challenge": "acc_norm", "gsm8k_cot": "exact_match_strict", "gsm8k": "exact_match_strict"}
"""The metric that is compared where a task has several: the paper's, and lm-eval's first."""
COUNTS = ("empty", "cut_off", "failed", "timed_out", "over_memory", "no_program")
"""What `grade` counts of written answers, the last four of programs."""


def read(scores: Path, policies: list[str]) -> dict[str, dict[str, Any]]:
    """Policy -> what `grade` wrote. Raises ValueError unless all answered the same questions."""
    found = {policy: policy_metrics.read(scores, policy) for policy in policies}
    other = [policy for policy, facts in found.items() if facts["ids"] != found["pi0"]["ids"]]
    if other:
        told = f"{other[0]} answered other questions of {scores.name} than pi0"
        raise ValueError(f"{told}, which cannot be paired; run answer again for all")
    return found


def score(values: np.ndarray, confidence: float) -> dict[str, Any]:
    """The mean of scores in 0..1, and its interval."""
    found: Any = proportion_confint(values.sum(), len(values), 1 - confidence, method="wilson")
    return {"value": round(float(values.mean()), 4), "interval": [round(float(bound), 4) for bound in found]}


def difference(mine: np.ndarray, theirs: np.ndarray, confidence: float, comparisons: int = 1) -> dict[str, Any]:
    """Of the mean scores on the same questions, its interval alone, and how many questions it would take to see 5
    points among so many comparisons, at the first and strictest of Holm's levels.
    """
    each = mine - theirs
    if set(np.unique(np.abs(each))) <= {0.0, 1.0} or each.std() == 0:
        each = np.append(each, [1.0, -1.0])
    middle, spread = float(each.mean()), float(each.std())
    error, beyond = spread / math.sqrt(len(each)), float(stats.norm.ppf((1 + confidence) / 2))
    strict = float(stats.norm.ppf(1 - (1 - confidence) / 2 / comparisons))
    wanted = ((strict + stats.norm.ppf(POWER)) * spread / POINTS) ** 2
    return {
        "difference": round(float((mine - theirs).mean()), 4),
        "interval": [round(max(middle - beyond * error, -1.0), 4), round(min(middle + beyond * error, 1.0), 4)],
        "p": float(2 * stats.norm.sf(abs(middle) / error)),
        "questions_for_5_points": math.ceil(wanted),
    }


def compared(read: dict[str, dict[str, Any]], task: str, confidence: float) -> dict[str, Any]:
    """The stage's metrics."""
    arrays = {policy: {m: np.array(v) for m, v in facts["scores"].items()} for policy, facts in read.items()}
    metrics = list(arrays["pi0"])
    headline = HEADLINE.get(task, metrics[0])
    pi0 = arrays["pi0"][headline]
    others = {policy: mine[headline] for policy, mine in arrays.items() if policy != "pi0"}
    over = {policy: difference(mine, pi0, confidence, len(others)) for policy, mine in others.items()}
    counts = {policy: {name: facts[name] for name in COUNTS if name in facts} for policy, facts in read.items()}
    scores = {policy: {m: score(values, confidence) for m, values in mine.items()} for policy, mine in arrays.items()}
    return {
        "questions": read["pi0"]["questions"],
        "headline": headline,
        "policies": {policy: scores[policy] | counts[policy] for policy in read},
        "over_pi0": holm.judged(over, confidence),
    }


def tables(name: str, facts: dict[str, Any]) -> list[benchmark_page.Table]:
    """The scores, and the differences from pi_0."""
    policies = facts["policies"]
    metrics = [metric for metric in policies["pi0"] if metric not in COUNTS]
    labels = [policy_metrics.label(policy) for policy in policies]
    rows = [[metric, *(benchmark_page.cell(mine[metric], "value") for mine in policies.values())] for metric in metrics]
    rows += [[count, *(str(mine[count]) for mine in policies.values())] for count in COUNTS if count in policies["pi0"]]
    header = ["policy", f"{facts['headline']} over π0", "p", "p (Holm)", "verdict", "questions to see 5 points"]
    over = [
        [
            policy_metrics.label(policy),
            benchmark_page.cell(each, "difference"),
            f"{each['p']:.3f}",
            f"{each['p_holm']:.3f}",
            each["verdict"],
            str(each["questions_for_5_points"]),
        ]
        for policy, each in facts["over_pi0"].items()
    ]
    return [([name, *labels], rows), (header, over)]


def main(params: Any, name: str, scores: Path, *, metrics: Path, table: Path, page: Path) -> None:
    policies = policy_metrics.names(params.iterations)
    facts = compared(read(scores, policies), params.benchmarks[name].task, params.evaluate.confidence)
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    about = f"{facts['questions']} questions of {name}."
    benchmark_page.write(name, about, tables(name, facts), facts, table, page)
    told = {policy: f"{each['difference']:+.3f}, {each['verdict']}" for policy, each in facts["over_pi0"].items()}
    print(f"benchmark_table {name}: {facts['headline']} over pi0 on {facts['questions']} questions, {told}")
