"""UltraFeedback: four answers with a score each; every two of them are a pair.

Reads   raw: instruction, completions [{response, fine-grained_score}]
Writes  preferences, metrics: see stages/data/pair_format.py; margin: the difference of the scores
Source  openbmb/UltraFeedback, train, MIT. Rule: RLHFlow's card, all pairs by `fine-grained_score`, ties dropped (by
        the filter). Not by `overall_score`, in which 2,628 answers rated 1 became 10.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

ANSWERS = pa.list_(pa.struct([("response", pa.string()), ("fine-grained_score", pa.float64())]))
RELEASE = releases.Release(
    "ultrafeedback", pa.schema([("instruction", pa.string()), ("completions", ANSWERS)]), pairs=340_025
)


def pairs(raw: pl.DataFrame) -> pl.DataFrame:
    each = raw.with_columns(k=pl.int_ranges(pl.col("completions").list.len())).explode("completions", "k")
    answer = pl.col("completions").struct
    answers = each.select(
        "row",
        prompt=pair_format.message("user", pl.col("instruction")),
        k="k",
        text=answer.field("response"),
        score=answer.field("fine-grained_score"),
    )
    return pair_format.all_pairs(RELEASE.name, answers)


def main(params: Any, name: str, raw: Path, *, preferences: Path, metrics: Path) -> None:
    pair_format.prepare(RELEASE, releases.batches(RELEASE, raw), pairs, name, raw, preferences, metrics)
