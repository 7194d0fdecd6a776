"""PKU-SafeRLHF-30K: two answers with labels for safety and for helpfulness, merged into one preference.

Reads   raw: prompt, response_0, response_1, is_response_0_safe, is_response_1_safe, better_response_id
Writes  preferences, metrics: see stages/data/pair_format.py
Source  PKU-Alignment/PKU-SafeRLHF-30K, train, CC-BY-NC-4.0. The paper says only that the signals are merged. Ours: the
        safe answer where exactly one is safe, else the better one.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

TEXT, FLAG = pa.string(), pa.bool_()
FIELDS = [
    ("prompt", TEXT),
    ("response_0", TEXT),
    ("response_1", TEXT),
    ("is_response_0_safe", FLAG),
    ("is_response_1_safe", FLAG),
]
RELEASE = releases.Release(
    "pku_saferlhf",
    pa.schema([*FIELDS, ("better_response_id", pa.int64())]),
    pairs=26_874,
    differs="the paper's merging rule is not published",
)


def pairs(raw: pl.DataFrame) -> pl.DataFrame:
    safe_0, safe_1, better = pl.col("is_response_0_safe"), pl.col("is_response_1_safe"), pl.col("better_response_id")
    first = pl.when(safe_0 != safe_1).then(safe_0).otherwise(better == 0)
    chosen, rejected = (pl.when(side).then("response_0").otherwise("response_1") for side in (first, ~first))
    return raw.select(
        id=pl.format("pku_saferlhf-{}", "row"),
        prompt=pair_format.message("user", pl.col("prompt")),
        chosen=pair_format.message("assistant", chosen),
        rejected=pair_format.message("assistant", rejected),
        margin=pl.lit(None, pl.Float64),
        chosen_finished=True,
        rejected_finished=True,
        drop=pair_format.first_rule(
            label_out_of_range=~better.is_in([0, 1]).fill_null(False),
            no_safety_label=safe_0.is_null() | safe_1.is_null(),
        ),
    )


def main(params: Any, name: str, raw: Path, *, preferences: Path, metrics: Path) -> None:
    pair_format.prepare(RELEASE, releases.batches(RELEASE, raw), pairs, name, raw, preferences, metrics)
