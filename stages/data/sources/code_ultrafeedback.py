"""CodeUltraFeedback: answers to programming tasks, each rated by a judge; every two rated ones are a pair.

Reads   raw: instruction, responses [{model, response}], annotations [{model, rating (text)}]
Writes  preferences, metrics: see stages/data/pair_format.py; margin: the difference of the ratings
Source  coseal/CodeUltraFeedback, train, MIT. Rule: RLHFlow's card, all pairs of unequal rating. There ratings are
        compared as text, so that 'N/A' beats '5' and '9' beats '10'; here they are numbers, and an answer rated N/A is
        in no pair.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

RESPONSES = pa.list_(pa.struct([("model", pa.string()), ("response", pa.string())]))
RATINGS = pa.list_(pa.struct([("model", pa.string()), ("rating", pa.string())]))
RELEASE = releases.Release(
    "code_ultrafeedback",
    pa.schema([("instruction", pa.string()), ("responses", RESPONSES), ("annotations", RATINGS)]),
    pairs=50_156,
    differs="the paper's set compares ratings as text and lets N/A win; here they are numbers",
)


def pairs(raw: pl.DataFrame) -> pl.DataFrame:
    """The annotation of an answer is the first one that names its model."""
    rating = (
        raw.select("row", "annotations")
        .explode("annotations")
        .unnest("annotations")
        .unique(["row", "model"], keep="first", maintain_order=True)
    )
    numbered = (
        raw.with_columns(k=pl.int_ranges(pl.col("responses").list.len())).explode("responses", "k").unnest("responses")
    )
    answers = numbered.join(rating, on=["row", "model"], how="left", maintain_order="left").select(
        "row",
        prompt=pair_format.message("user", pl.col("instruction")),
        k="k",
        text="response",
        score=pl.col("rating").cast(pl.Int64, strict=False).cast(pl.Float64),
    )
    return pair_format.all_pairs(RELEASE.name, answers)


def main(params: Any, name: str, raw: Path, *, preferences: Path, metrics: Path) -> None:
    pair_format.prepare(RELEASE, releases.batches(RELEASE, raw), pairs, name, raw, preferences, metrics)
