"""Set the policies side by side on one chat benchmark: what the referee made of them, and each policy against pi_0.

Reads   scores: a folder with one file of stages/benchmarks/chats/scores.py for each policy; `name` of the benchmark
Writes  metrics: {questions, left_out, judge, headline, policies: {policy: {statistic: {value, interval}, empty,
        cut_off, unread, characters}}, categories: {category: {policy: value}}, over_pi0: {policy: difference, interval,
        p, p_holm, verdict, questions}}; table: the same in Markdown; page: in HTML, with bars
Params  iterations; evaluate.confidence, evaluate.resamples (at most 1,000 here), seed
Source  intervals: percentile bootstrap over questions, both orders and all turns of one together, the same draws for
        all policies, so that differences are paired. A score without spread: Wilson 1927. Several policies: Holm 1979.
        Style control: a Bradley-Terry model with the differences of length and markdown, as Arena-Hard's

Only questions whose verdicts could be read for every policy count; how many were left out is said.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special, stats
from statsmodels.stats.proportion import proportion_confint

from stages.evaluation import benchmark_page, holm, length_controlled, policy_metrics

MOST_RESAMPLES, POWER = 1000, 0.8
RIDGE = 1.0
"""Of the style's weights and of a policy's own: with no bound, a policy that always wins has an infinite one."""


class Judged(NamedTuple):
    """A policy's questions, each (N,): scores by metric, how often each counts, and what a regression controls for.

    style: (N, 4), length as (mine - theirs) / (mine + theirs), headers, list items, bold words.
    """

    scores: dict[str, np.ndarray]
    weights: np.ndarray
    lengths: np.ndarray
    difficulties: np.ndarray
    style: np.ndarray


Found = dict[str, Judged]
Of = Callable[[Found, np.ndarray], dict[str, float]]
"""What a number is of the policies on some of the questions, drawn with repetition: (R,) of their places."""


class Statistic(NamedTuple):
    """A number, and the metric that it reads."""

    metric: str
    of: Of


def judged(facts: dict[str, Any], rows: list[int]) -> Judged:
    """What one file says of these questions."""
    column = lambda name: np.array([facts[name][row] for row in rows], float)  # noqa: E731
    mine, theirs = column("characters"), column("baseline_characters")
    length = (mine - theirs) / np.maximum(mine + theirs, 1)
    return Judged(
        {name: np.array([values[row] for row in rows], float) for name, values in facts["scores"].items()},
        column("weight"),
        theirs - mine,
        column("difficulty"),
        np.column_stack([length, column("style")]),
    )


def mean_of(metric: str) -> Statistic:
    """Of the mean over questions, each as often as its verdicts count."""

    def mean(found: Found, rows: np.ndarray) -> dict[str, float]:
        return {
            policy: float(np.average(each.scores[metric][rows], weights=each.weights[rows]))
            for policy, each in found.items()
        }

    return Statistic(metric, mean)


def at_equal_lengths(found: Found, rows: np.ndarray) -> dict[str, float]:
    """The length-controlled win rate (length_controlled.py), without gamed baselines."""
    rates = {}
    for policy, each in found.items():
        columns = each.scores["win_rate"][rows], each.lengths[rows], each.difficulties[rows]
        answers = length_controlled.Answers(*columns)
        rates[policy] = length_controlled.win_rate(answers, length_controlled.fit(answers))
    return rates


def at_equal_style(found: Found, rows: np.ndarray) -> dict[str, float]:
    """P(a policy beats the baseline) were both of one style: one weight a policy, and four that all share."""
    styles = np.vstack([each.style[rows] for each in found.values()])
    spread = styles.std(axis=0)
    own = np.repeat(np.eye(len(found)), len(rows), axis=0)
    columns = np.column_stack([own, styles / np.where(spread > 0, spread, 1.0)])
    won = np.concatenate([each.scores["win_rate"][rows] for each in found.values()])
    counts = np.concatenate([each.weights[rows] for each in found.values()])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = columns @ weights
        likelihood = counts @ (won * logits - np.logaddexp(0, logits))
        slope = columns.T @ (counts * (won - special.expit(logits)))
        return float(RIDGE * weights @ weights / 2 - likelihood), RIDGE * weights - slope

    fitted = optimize.minimize(loss, np.zeros(columns.shape[1]), jac=True, method="BFGS").x
    return dict(zip(found, special.expit(fitted[: len(found)]).tolist(), strict=True))


class Task(NamedTuple):
    """How a benchmark is summed up: the headline first; from `low` to `high`; what difference one wants to see."""

    statistics: dict[str, Statistic]
    low: float
    high: float
    step: float


class Level(NamedTuple):
    """How sure one wants to be, and of how many comparisons at once."""

    confidence: float
    comparisons: int


TASKS = {
    "alpaca_eval": Task(
        {"length_controlled": Statistic("win_rate", at_equal_lengths), "win_rate": mean_of("win_rate")}, 0.0, 1.0, 0.05
    ),
    "arena_hard": Task(
        {"win_rate": mean_of("win_rate"), "style_controlled": Statistic("win_rate", at_equal_style)}, 0.0, 1.0, 0.05
    ),
    "mt_bench": Task({name: mean_of(name) for name in ("rating", "turn_1", "turn_2")}, 1.0, 10.0, 0.5),
}


def common(files: dict[str, dict[str, Any]], metric: str) -> list[int]:
    """Places of the questions that could be read for every policy. Raises ValueError where there are none."""
    first = next(iter(files.values()))
    for policy, facts in files.items():
        if facts["ids"] != first["ids"]:
            raise ValueError(
                f"{policy} answered other questions than pi0, which cannot be paired; run it again for all"
            )
        if facts["judge"] != first["judge"]:
            told = f"{policy} was judged by {facts['judge']}, pi0 by {first['judge']}"
            raise ValueError(f"{told}, which cannot be compared; ask one judge about all")
    places = range(len(first["ids"]))
    read = [place for place in places if all(f["scores"][metric][place] is not None for f in files.values())]
    if not read:
        raise ValueError(f"no question's verdict could be read for every policy, of {len(places)}; look at the judge")
    return read


def in_use(task: Task, found: Found) -> dict[str, Of]:
    """The statistics whose metric every question has: a second turn is not everybody's."""
    whole = lambda metric: all(  # noqa: E731
        metric in each.scores and not np.isnan(each.scores[metric]).any() for each in found.values()
    )
    return {name: statistic.of for name, statistic in task.statistics.items() if whole(statistic.metric)}


def drawn(statistic: Of, found: Found, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """(R,) of each policy, by the bootstrap over questions."""
    generator, number = np.random.default_rng(seed), len(next(iter(found.values())).weights)
    each = [statistic(found, generator.integers(number, size=number)) for _ in range(resamples)]
    return {policy: np.array([values[policy] for values in each]) for policy in found}


def alike(samples: np.ndarray) -> bool:
    """Whether all draws gave one number, but for its last bits."""
    return float(np.ptp(samples)) < 1e-9


def bounds(samples: np.ndarray, confidence: float) -> list[float]:
    return np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()


def score(value: float, samples: np.ndarray, number: int, task: Task, confidence: float) -> dict[str, Any]:
    """A statistic with its interval; Wilson's where the questions are all alike."""
    interval, width = bounds(samples, confidence), task.high - task.low
    if alike(samples):
        share = (value - task.low) / width
        found: Any = proportion_confint(share * number, number, 1 - confidence, method="wilson")
        interval = [task.low + width * float(bound) for bound in found]
    return {"value": round(value, 4), "interval": [round(bound, 4) for bound in interval]}


def difference(mine: float, theirs: float, samples: np.ndarray, number: int, task: Task, level: Level) -> dict:
    """Of a statistic, paired, its interval alone; and how many questions it would take to see a step among so many
    comparisons.

    Where all questions differ alike there is no spread: one won and one lost are added, as benchmark_table does.
    """
    beyond, spread = float(stats.norm.ppf((1 + level.confidence) / 2)), float(samples.std())
    low, high = bounds(samples, level.confidence)
    below, above = int((samples <= 0).sum()), int((samples >= 0).sum())
    p = min(1.0, 2 * (1 + min(below, above)) / (1 + len(samples)))
    if alike(samples):
        spread = (task.high - task.low) * math.sqrt(2 / (number + 2)) / math.sqrt(number + 2)
        low, high = mine - theirs - beyond * spread, mine - theirs + beyond * spread
        p = float(2 * stats.norm.sf(abs(mine - theirs) / spread))
    strict = float(stats.norm.ppf(1 - (1 - level.confidence) / 2 / level.comparisons))
    wanted = number * ((strict + stats.norm.ppf(POWER)) * spread / task.step) ** 2
    return {
        "difference": round(mine - theirs, 4),
        "interval": [round(low, 4), round(high, 4)],
        "p": p,
        "questions": math.ceil(wanted),
    }


def by_category(found: Found, categories: list[str], metric: str) -> dict[str, dict[str, float]]:
    """The mean of a metric in each category; none where there is one category or each is one question."""
    names = sorted({name for name in categories if name})
    if not 1 < len(names) < len(categories):
        return {}
    places = {name: np.array([k for k, other in enumerate(categories) if other == name]) for name in names}
    means = {name: mean_of(metric).of(found, rows) for name, rows in places.items()}
    return {name: {policy: round(value, 4) for policy, value in each.items()} for name, each in means.items()}


def compared(files: dict[str, dict[str, Any]], task: Task, confidence: float, resamples: int, seed: int) -> dict:
    """The stage's metrics."""
    headline = next(iter(task.statistics))
    metric = task.statistics[headline].metric
    rows = common(files, metric)
    found = {policy: judged(facts, rows) for policy, facts in files.items()}
    statistics, every, number = in_use(task, found), np.arange(len(rows)), len(rows)
    values = {name: of(found, every) for name, of in statistics.items()}
    samples = {name: drawn(of, found, resamples, seed) for name, of in statistics.items()}
    policies: dict[str, Any] = {}
    for policy, facts in files.items():
        counts = {name: facts[name] for name in ("empty", "cut_off")} | {"unread": len(facts["unread"]["questions"])}
        characters = {"characters": round(float(np.mean(facts["characters"])), 1)}
        scores = {name: score(values[name][policy], samples[name][policy], number, task, confidence) for name in values}
        policies[policy] = scores | counts | characters
    mine, draws, level = values[headline], samples[headline], Level(confidence, len(files) - 1)
    over = {
        policy: difference(mine[policy], mine["pi0"], draws[policy] - draws["pi0"], number, task, level)
        for policy in files
        if policy != "pi0"
    }
    first = files["pi0"]
    return {
        "questions": number,
        "left_out": len(first["ids"]) - number,
        "judge": first["judge"],
        "headline": headline,
        "policies": policies,
        "categories": by_category(found, [first["category"][row] for row in rows], metric),
        "over_pi0": holm.judged(over, confidence),
    }


def about(name: str, facts: dict[str, Any]) -> str:
    """How many questions count, and who judged."""
    judge = facts["judge"]
    spoke = ", ".join(judge["spoke"]) or judge["asked"]
    told = f"{facts['questions']} questions of {name}, {facts['left_out']} left out since a verdict could not be read"
    return f"{told}. Judge: {judge['asked']}, as it names itself: {spoke}; words {judge['words']}."


def tables(name: str, facts: dict[str, Any], task: Task) -> list[benchmark_page.Table]:
    """The scores, and the differences from pi_0."""
    policies = facts["policies"]
    labels = [policy_metrics.label(policy) for policy in policies]
    scores = [metric for metric in task.statistics if metric in policies["pi0"]]
    rows = [[metric, *(benchmark_page.cell(mine[metric], "value") for mine in policies.values())] for metric in scores]
    counts = ("characters", "empty", "cut_off", "unread")
    rows += [[count, *(str(mine[count]) for mine in policies.values())] for count in counts]
    rows += [[category, *(f"{value:.3f}" for value in each.values())] for category, each in facts["categories"].items()]
    header = ["policy", f"{facts['headline']} over π0", "p", "p (Holm)", "verdict", f"questions to see {task.step:g}"]
    over = []
    for policy, each in facts["over_pi0"].items():
        numbers = [benchmark_page.cell(each, "difference"), f"{each['p']:.3f}", f"{each['p_holm']:.3f}"]
        over.append([policy_metrics.label(policy), *numbers, each["verdict"], str(each["questions"])])
    return [([name, *labels], rows), (header, over)]


def main(params: Any, name: str, scores: Path, *, metrics: Path, table: Path, page: Path) -> None:
    evaluate = params.evaluate
    files = {policy: policy_metrics.read(scores, policy) for policy in policy_metrics.names(params.iterations)}
    task, resamples = TASKS[files["pi0"]["task"]], min(evaluate.resamples, MOST_RESAMPLES)
    facts = compared(files, task, evaluate.confidence, resamples, params.seed)
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    benchmark_page.write(name, about(name, facts), tables(name, facts, task), facts, table, page)
    seen = {policy: f"{each['difference']:+.3f}, {each['verdict']}" for policy, each in facts["over_pi0"].items()}
    print(f"chat_table {name}: {facts['headline']} over pi0 on {facts['questions']} questions, {seen}")
