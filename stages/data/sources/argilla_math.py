"""Argilla's mathematical preferences: all rows.

Reads   raw: instruction, chosen_response, rejected_response, chosen_rating, rejected_rating
Writes  preferences, metrics: see stages/data/pair_format.py; margin: the difference of the ratings
Source  argilla/distilabel-math-preference-dpo, train, Apache-2.0. Rule: RLHFlow's card, all 2,418 rows; the ratings
        choose nothing.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

TEXT, NUMBER = pa.string(), pa.float64()
FIELDS = [
    ("instruction", TEXT),
    ("chosen_response", TEXT),
    ("rejected_response", TEXT),
    ("chosen_rating", NUMBER),
    ("rejected_rating", NUMBER),
]
RELEASE = releases.Release("argilla_math", pa.schema(FIELDS), pairs=2_418)


def pairs(raw: pl.DataFrame) -> pl.DataFrame:
    return raw.select(
        id=pl.format("argilla_math-{}", "row"),
        prompt=pair_format.message("user", pl.col("instruction")),
        chosen=pair_format.message("assistant", pl.col("chosen_response")),
        rejected=pair_format.message("assistant", pl.col("rejected_response")),
        margin=pl.col("chosen_rating") - pl.col("rejected_rating"),
        chosen_finished=True,
        rejected_finished=True,
        drop=pl.lit(None, pl.String),
    )


def main(params: Any, name: str, raw: Path, *, preferences: Path, metrics: Path) -> None:
    pair_format.prepare(RELEASE, releases.batches(RELEASE, raw), pairs, name, raw, preferences, metrics)
