"""The length-controlled win rate: what share of the answers a judge would prefer to the baseline's, were they as long.

A logistic regression of the judge's preference on length, difficulty of the instruction, and the model itself, read at
equal lengths (Dubois et al. 2024, arXiv 2404.04475, section 4, and alpaca_eval's estimator):

    logit p = a tanh(D / std D) + b difficulty + c        D: characters of the baseline's answer less the model's

The judge's own answers to being asked for long and for short ones, two gamed baselines, join with a small weight and
without c; their preferences enter through two sums alone, so those are what is kept of them. The L1 penalty has one
strength for all models: alpaca_eval chooses it anew for each by cross-validation, mostly this one, and within 0.1
points of the published win rate it does not matter (tests/test_length_controlled.py).

A preference belongs to its instruction, and so does a difficulty: rows are joined by that number. Where some of a
model's rows are missing, alpaca_eval takes difficulties by place, which moved three published numbers (by 0.1, 1.6 and
2.5 points).
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

STRENGTH = 21.54
"""C, of the likelihood against the L1 penalty: the middle one of those that alpaca_eval's choice falls on."""


class Gamed(NamedTuple):
    """The gamed baselines' rows: what is known of them.

    lengths, difficulties: (M,), tanh(D / std D) and the instruction's. sum_length, sum_difficulty: of the preferences
    times these; weight: of one such row.
    """

    lengths: np.ndarray
    difficulties: np.ndarray
    sum_length: float
    sum_difficulty: float
    weight: float


NONE = Gamed(np.zeros(0), np.zeros(0), 0.0, 0.0, 0.0)


class Answers(NamedTuple):
    """A model's answers, one an instruction, each (N,): the judge's preference for them in 0..1, D in characters, the
    instruction's difficulty.
    """

    preferences: np.ndarray
    differences: np.ndarray
    difficulties: np.ndarray


class Weights(NamedTuple):
    """Of the regression: a, b and c."""

    length: float
    difficulty: float
    model: float


NOWHERE = Weights(0.0, 0.0, 0.0)


def tamed(differences: np.ndarray) -> np.ndarray:
    """(N,) differences in characters to -1..1; all 0 where they are all the same."""
    spread = differences.std(ddof=1) if len(differences) > 1 else 0.0
    return np.tanh(differences / spread) if spread else np.zeros(len(differences))


def fit(answers: Answers, gamed: Gamed = NONE, start: Weights = NOWHERE) -> Weights:
    """The regression's weights, looked for from `start` on.

    |a| + |b| + |c| - STRENGTH log-likelihood, as a smooth problem: each weight is a difference of two that are not
    negative. SLSQP ends within 1e-6 of the optimum in 3 ms; L-BFGS-B stopped early on some models, 0.03 points away.
    """
    own = np.column_stack([tamed(answers.differences), answers.difficulties, np.ones(len(answers.preferences))])
    theirs = np.column_stack([gamed.lengths, gamed.difficulties, np.zeros(len(gamed.lengths))])
    won = own.T @ answers.preferences + gamed.weight * np.array([gamed.sum_length, gamed.sum_difficulty, 0.0])
    rows, counts = np.vstack([own, theirs]), np.repeat([1.0, gamed.weight], [len(own), len(theirs)])

    def loss(parts: np.ndarray) -> tuple[float, np.ndarray]:
        weights = parts[:3] - parts[3:]
        logits = rows @ weights
        likelihood = won @ weights - counts @ np.logaddexp(0, logits)
        slope = STRENGTH * (won - rows.T @ (counts * special.expit(logits)))
        return parts.sum() - STRENGTH * likelihood, np.concatenate([1 - slope, 1 + slope])

    options = {"maxiter": 1000, "ftol": 1e-9}
    begin = np.maximum(np.concatenate([start, np.negative(start)]), 0.0)
    found = optimize.minimize(loss, begin, jac=True, method="SLSQP", bounds=[(0, None)] * 6, options=options)
    if not found.success:
        raise ValueError(f"the length-controlled regression did not converge: {found.message}; look at the lengths")
    return Weights(*(found.x[:3] - found.x[3:]))


def win_rate(answers: Answers, weights: Weights) -> float:
    """In 0..1, the mean over the instructions that were answered, at equal lengths."""
    return float(special.expit(weights.difficulty * answers.difficulties + weights.model).mean())


def interval(answers: Answers, gamed: Gamed, resamples: int, confidence: float, seed: int) -> list[float]:
    """[low, high] of the win rate, by the percentile bootstrap over instructions, each with a fit of its own."""
    generator, number, whole = np.random.default_rng(seed), len(answers.preferences), fit(answers, gamed)
    drawn = (generator.integers(number, size=number) for _ in range(resamples))
    samples = (Answers(*(column[rows] for column in answers)) for rows in drawn)
    found = [win_rate(sample, fit(sample, gamed, whole)) for sample in samples]
    return np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()


def answers(rows: list[dict[str, Any]], difficulties: dict[int, float]) -> Answers:
    """Rows of index, preference, characters, baseline_characters, joined to difficulties by index.

    Raises ValueError for an index that comes twice or is none, and for a preference outside 0..1.
    """
    seen: set[int] = set()
    for row in rows:
        index, preference = row["index"], row["preference"]
        if index in seen or index not in difficulties:
            rule = "stands there twice" if index in seen else f"is none of the {len(difficulties)} instructions"
            raise ValueError(f"instruction {index} {rule}; a model has one row for each instruction that was judged")
        if preference is None or not 0 <= preference <= 1:
            rule = "the judge's preference for the model is a number from 0 to 1"
            raise ValueError(f"instruction {index}: preference {preference}, {rule}; leave out what was not judged")
        seen.add(index)
    return Answers(
        np.array([row["preference"] for row in rows], float),
        np.array([row["baseline_characters"] - row["characters"] for row in rows], float),
        np.array([difficulties[row["index"]] for row in rows], float),
    )
