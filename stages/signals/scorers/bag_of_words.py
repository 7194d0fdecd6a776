"""Score candidates by which words they hold: a floor that a reward model should clear, since it needs no language
model.

Reads   train: preference pairs; candidates: shards of completion
Writes  scores: the candidates' shards, and reward (float64, a logit)

A logistic regression on the difference of the answers' word counts, log(1 + count), fitted by gradient descent with
weight decay.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages import shards

WORDS, STEPS, RATE, DECAY = 3000, 300, 0.5, 0.01


def vocabulary(texts: list[str]) -> dict[str, int]:
    """The commonest words of the texts and their columns; of equally common ones those that stand first in the
    alphabet.
    """
    counted = Counter(word for text in texts for word in text.lower().split())
    return {
        word: column
        for column, (word, _) in enumerate(sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:WORDS])
    }


def features(texts: list[str], columns: dict[str, int]) -> np.ndarray:
    """log(1 + count) of each known word, shape (N, words), float32."""
    table = np.zeros((len(texts), len(columns)), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            if word in columns:
                table[row, columns[word]] += 1
    return np.log1p(table)


def fitted(pairs: list[dict]) -> tuple[dict[str, int], np.ndarray]:
    """The vocabulary, and a weight for each word, that make the chosen answers win."""
    chosen, rejected = ([row[side][0]["content"] for row in pairs] for side in ("chosen", "rejected"))
    columns = vocabulary(chosen + rejected)
    difference, weights = features(chosen, columns) - features(rejected, columns), np.zeros(len(columns), np.float32)
    for _ in range(STEPS):
        wrong = 1 / (1 + np.exp(difference @ weights))
        weights += RATE * (difference.T @ wrong / len(difference) - DECAY * weights)
    return columns, weights


def main(params: Any, train: Path, candidates: Path, *, scores: Path) -> None:
    columns, weights = fitted(pq.read_table(train).to_pylist())
    scores.mkdir()
    number = 0
    for file in shards.files(candidates):
        table = pq.read_table(file)
        rewards = (features(table["completion"].to_pylist(), columns) @ weights).astype(np.float64)
        pq.write_table(table.append_column("reward", pa.array(rewards, pa.float64())), scores / file.name)
        number += len(rewards)
    print(f"score bag_of_words: {number} candidates, {len(columns)} words")
