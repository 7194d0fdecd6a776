"""OpenOrca: an answer of one model against another's, rated by a judge.

Reads   raw: system, input, chosen, rejected, status, chosen_score, in_gsm8k_train
Writes  preferences, metrics: see stages/data/pair_format.py
Rule    min_chosen_score
Source  argilla/distilabel-intel-orca-dpo-pairs, train, Apache-2.0: 12,859 rows, of which the paper keeps 6,926 by a
        filter that is not published. Ours is the publisher's advice: no tie, the chosen answer rated 8 or more, no
        question of GSM8K's training set.
"""

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

FIELDS = [(name, pa.string()) for name in ("system", "input", "chosen", "rejected", "status")]
RELEASE = releases.Release(
    "open_orca",
    pa.schema([*FIELDS, ("chosen_score", pa.float64()), ("in_gsm8k_train", pa.bool_())]),
    pairs=6_926,
    differs="the paper's filter is not published; here the publisher's advice",
)


def pairs(raw: pl.DataFrame, min_chosen_score: float) -> pl.DataFrame:
    user = pair_format.message("user", pl.col("input"))
    silent = pl.col("system").fill_null("").str.strip_chars() == ""
    score = pl.col("chosen_score")
    return raw.select(
        id=pl.format("open_orca-{}", "row"),
        prompt=pl.when(silent)
        .then(user)
        .otherwise(pl.concat_list(pair_format.message("system", pl.col("system")), user)),
        chosen=pair_format.message("assistant", pl.col("chosen")),
        rejected=pair_format.message("assistant", pl.col("rejected")),
        margin=pl.lit(None, pl.Float64),
        chosen_finished=True,
        rejected_finished=True,
        drop=pair_format.first_rule(
            tie=(pl.col("status") == "tie").fill_null(True),
            not_rated=score.is_null(),
            low_score=score < min_chosen_score,
            in_gsm8k=pl.col("in_gsm8k_train").fill_null(True),
        ),
    )


def main(params: Any, name: str, raw: Path, min_chosen_score: float, *, preferences: Path, metrics: Path) -> None:
    rule = partial(pairs, min_chosen_score=min_chosen_score)
    pair_format.prepare(RELEASE, releases.batches(RELEASE, raw), rule, name, raw, preferences, metrics)
