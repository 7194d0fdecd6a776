"""Capybara: whole conversations whose last answers differ, rated by a judge.

Reads   raw: chosen, rejected (messages), chosen_rating, rejected_rating
Writes  preferences, metrics: see stages/data/pair_format.py; margin: the difference of the ratings
Source  argilla/Capybara-Preferences-Filtered, train, Apache-2.0. The paper cites the 7,563 rows of
        argilla/distilabel-capybara-dpo-7k-binarized, but its count of 14,811 is that of this set, which RLHFlow's card
        names. Ties are dropped by the filter.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases
from stages.messages import MESSAGES

FIELDS = [
    ("chosen", MESSAGES),
    ("rejected", MESSAGES),
    ("chosen_rating", pa.float64()),
    ("rejected_rating", pa.float64()),
]
RELEASE = releases.Release("capybara", pa.schema(FIELDS), pairs=14_811)


def pairs(raw: pl.DataFrame) -> pl.DataFrame:
    c, r = pl.col("chosen"), pl.col("rejected")
    context = c.list.head(c.list.len() - 1)
    return raw.select(
        id=pl.format("capybara-{}", "row"),
        prompt=context,
        chosen=c.list.tail(1),
        rejected=r.list.tail(1),
        margin=pl.col("chosen_rating") - pl.col("rejected_rating"),
        chosen_finished=True,
        rejected_finished=True,
        drop=pair_format.first_rule(
            no_answer=((c.list.len() < 2) | (r.list.len() < 2)).fill_null(True),
            context_differs=context != r.list.head(r.list.len() - 1),
        ),
    )


def main(params: Any, name: str, raw: Path, *, preferences: Path, metrics: Path) -> None:
    pair_format.prepare(RELEASE, releases.batches(RELEASE, raw), pairs, name, raw, preferences, metrics)
