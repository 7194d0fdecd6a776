"""The reward model of the profile `people` on real preferences: held out by set, on LLMBar and on HHH by section, beside a bag of words.

Run     python -m stages.profile people mix.hh_harmless.raw=... (docs/data.md) && dvc --wait-for-lock repro reward_bench
        python -m tests.perf.people llmbar.jsonl.gz hhh.jsonl.gz
Prints  a Markdown table of accuracies with their standard errors

The bag of words is a logistic regression on the difference of the answers' word counts, trained on the same pairs.
"""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from stages.sources import own

FOLDER = Path(".scratch/people")


def counts(texts: list[str], vocabulary: dict[str, int]) -> np.ndarray:
    """log(1 + count) of each word of the vocabulary, shape (N, words)."""
    table = np.zeros((len(texts), len(vocabulary)), np.float32)
    for i, text in enumerate(texts):
        for word in text.lower().split():
            if word in vocabulary:
                table[i, vocabulary[word]] += 1
    return np.log1p(table)


def sides(rows: list[dict]) -> tuple[list[str], list[str]]:
    return [r["chosen"][0]["content"] for r in rows], [r["rejected"][0]["content"] for r in rows]


def bag_of_words(train: list[dict]) -> tuple[dict[str, int], np.ndarray]:
    """Vocabulary (the 3,000 commonest words) and weights, by 300 steps of gradient descent with weight decay."""
    chosen, rejected = sides(train)
    common = pl.Series(" ".join(chosen + rejected).lower().split()).value_counts(sort=True).head(3000)
    vocabulary = {word: i for i, word in enumerate(common.to_series().to_list())}
    difference, weights = counts(chosen, vocabulary) - counts(rejected, vocabulary), np.zeros(len(vocabulary), np.float32)
    for _ in range(300):
        wrong = 1 / (1 + np.exp(difference @ weights))
        weights += 0.5 * (difference.T @ wrong / len(difference) - 0.01 * weights)
    return vocabulary, weights


def judged(raw: Path) -> list[dict]:
    """A file of pairs with the reward model's verdicts, its subsets as sources."""
    name = raw.name.split(".")[0]
    FOLDER.mkdir(parents=True, exist_ok=True)
    pairs, verdicts = FOLDER / f"{name}.parquet", FOLDER / f"{name}-judged.parquet"
    own.main(None, name, raw, preferences=pairs, metrics=FOLDER / "account.json")
    subsets = {f"{name}-{row['id']}": row["subset"] for row in pl.read_ndjson(raw).iter_rows(named=True)}
    words = ["--reward", "models/reward", "--heldout", str(pairs), "--judged", str(verdicts)]
    subprocess.run([sys.executable, "-m", "stages.run", "reward_bench", *words], check=True)
    return [row | {"source": f"{name}: {subsets[row['id']]}"} for row in pq.read_table(verdicts).to_pylist()]


def accuracy(hits: np.ndarray) -> str:
    return f"{hits.mean():.2f} ± {math.sqrt(hits.mean() * (1 - hits.mean()) / len(hits)):.2f}"


def main() -> None:
    rows = pq.read_table("data/judged/heldout.parquet").to_pylist()
    everything = {"held out": rows} | {Path(raw).name.split(".")[0]: judged(Path(raw)) for raw in sys.argv[1:]}
    vocabulary, weights = bag_of_words(pq.read_table("data/filtered/train.parquet").to_pylist())
    print("| pairs | n | reward model | bag of words | the longer |\n| --- | ---: | ---: | ---: | ---: |")
    for name, all_rows in everything.items():
        for group in [None, *sorted({row["source"] for row in all_rows})]:
            part = [row for row in all_rows if group in (None, row["source"])]
            chosen, rejected = sides(part)
            reward = np.array([row["reward_chosen"] > row["reward_rejected"] for row in part], float)
            bag = ((counts(chosen, vocabulary) - counts(rejected, vocabulary)) @ weights > 0).astype(float)
            longer = np.array([len(c) > len(r) for c, r in zip(chosen, rejected, strict=True)], float)
            print(f"| {group or name} | {len(part)} | {accuracy(reward)} | {accuracy(bag)} | {accuracy(longer)} |")


if __name__ == "__main__":
    main()
