"""SHP: two comments under one Reddit post, the one with more votes preferred.

Reads   raw: post_id, history, human_ref_A, human_ref_B, labels (1: A, 0: B), score_A, score_B, c_root_id_A,
        c_root_id_B
Writes  preferences, metrics: see stages/data/pair_format.py; margin: the ratio of the votes
Rule    min_ratio, exclusive; pairs_per_post, at most
Source  stanfordnlp/SHP, train. Rule: RLHFlow's card, ratio of votes > 2 and at most 5 pairs a prompt. Which five is
        not said: here those whose comments' ids come first by hash, so that the choice depends neither on the order of
        rows nor on a seed.
"""

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

TEXT, NUMBER = pa.string(), pa.int64()
FIELDS = [
    ("post_id", TEXT),
    ("history", TEXT),
    ("human_ref_A", TEXT),
    ("human_ref_B", TEXT),
    ("labels", NUMBER),
    ("score_A", NUMBER),
    ("score_B", NUMBER),
]
RELEASE = releases.Release("shp", pa.schema([*FIELDS, ("c_root_id_A", TEXT), ("c_root_id_B", TEXT)]), pairs=93_301)


def ratio() -> pl.Expr:
    """Votes of the preferred comment over those of the other."""
    a, b = pl.col("score_A"), pl.col("score_B")
    return pl.when(pl.col("labels") == 1).then(a / b).otherwise(b / a)


def fault(min_ratio: float) -> pl.Expr:
    votes = (pl.col("score_A") < 1) | (pl.col("score_B") < 1)
    return pair_format.first_rule(
        label_out_of_range=~pl.col("labels").is_in([0, 1]).fill_null(False),
        no_votes=votes.fill_null(True),
        small_ratio=~(ratio() > min_ratio),
    )


def first_of_each_post(raw: pl.DataFrame, pairs_per_post: int) -> pl.Series:
    """Row numbers of the pairs kept, of those without fault."""
    ordered = raw.with_columns(order=pl.concat_str("c_root_id_A", pl.lit(" "), "c_root_id_B").hash(seed=0)).sort(
        "post_id", "order", "row"
    )
    return ordered.group_by("post_id", maintain_order=True).head(pairs_per_post)["row"].sort()


def pairs(raw: pl.DataFrame, min_ratio: float, kept: pl.Series) -> pl.DataFrame:
    a = pl.col("labels") == 1
    better, worse = (pl.when(side).then("human_ref_A").otherwise("human_ref_B") for side in (a, ~a))
    over = ~pl.col("row").is_in(kept.implode())
    return raw.select(
        id=pl.format("shp-{}", "row"),
        prompt=pair_format.message("user", pl.col("history")),
        chosen=pair_format.message("assistant", better),
        rejected=pair_format.message("assistant", worse),
        margin=ratio(),
        chosen_finished=True,
        rejected_finished=True,
        drop=pl.coalesce(fault(min_ratio), pair_format.first_rule(over_pairs_per_post=over)),
    )


def main(
    params: Any, name: str, raw: Path, min_ratio: float, pairs_per_post: int, *, preferences: Path, metrics: Path
) -> None:
    light = ["row", "post_id", "c_root_id_A", "c_root_id_B"]
    sound = pl.concat(f.filter(fault(min_ratio).is_null()).select(light) for f, _ in releases.batches(RELEASE, raw))
    kept = first_of_each_post(sound, pairs_per_post)
    pair_format.prepare(
        RELEASE,
        releases.batches(RELEASE, raw),
        partial(pairs, min_ratio=min_ratio, kept=kept),
        name,
        raw,
        preferences,
        metrics,
    )
