"""Score candidates by which words they hold: a floor that a reward model should clear, since it needs no language
model.

Reads   train: preference pairs; candidates: shards of completion
Writes  scores: the candidates' shards, and reward (float64, a logit)

A logistic regression, without intercept, on the difference of the answers' word counts, log(1 + count). A word counts
where two answers or more of the training pairs hold it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages import shards

DECAY = 0.01
"""Half of it, times the weights' squared length, is added to the mean loss of a pair."""


def features(counter: Any, texts: list[str]) -> Any:
    """log(1 + count) of each word, sparse (N, words), float64."""
    return counter.transform(texts).astype(np.float64).log1p()


def fitted(pairs: list[dict]) -> tuple[Any, np.ndarray]:
    """A counter of words, and a weight for each, (words,), that make the chosen answers win."""
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    chosen, rejected = ([row[side][0]["content"] for row in pairs] for side in ("chosen", "rejected"))
    counter = CountVectorizer(token_pattern=r"\S+", min_df=2).fit(chosen + rejected)
    difference = features(counter, chosen) - features(counter, rejected)
    both = vstack([difference, -difference])  # each pair seen from either side: a classifier wants two classes
    first_wins = np.repeat([1, 0], len(pairs))
    strength = 1 / (DECAY * 2 * len(pairs))
    regression = LogisticRegression(C=strength, fit_intercept=False, tol=1e-6, max_iter=1000)
    return counter, regression.fit(both, first_wins).coef_[0]


def main(params: Any, train: Path, candidates: Path, *, scores: Path) -> None:
    counter, weights = fitted(pq.read_table(train).to_pylist())
    scores.mkdir()
    number = 0
    for file in shards.files(candidates):
        table = pq.read_table(file)
        rewards = features(counter, table["completion"].to_pylist()) @ weights
        pq.write_table(table.append_column("reward", pa.array(rewards, pa.float64())), scores / file.name)
        number += len(rewards)
    print(f"score bag_of_words: {number} candidates, {len(weights)} words")
