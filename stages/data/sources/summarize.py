"""Summaries of Reddit posts and of news, compared by people (of mix1).

Reads   raw: info {post, title, subreddit, article}, summaries [{text}], choice
Writes  preferences, metrics: see stages/data/pair_format.py
Source  openai/summarize_from_feedback, config comparisons, train; prompt and sides as TRL's tldr_preference makes
        them. Whether mix1 holds the news too, and how many rows, is not published: all rows here, `rows` of the mix
        caps them.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

INFO = pa.struct([(name, pa.string()) for name in ("post", "title", "subreddit", "article")])
RELEASE = releases.Release(
    "summarize",
    pa.schema([("info", INFO), ("summaries", pa.list_(pa.struct([("text", pa.string())]))), ("choice", pa.int64())]),
)


def pairs(raw: pl.DataFrame) -> pl.DataFrame:
    info, choice = pl.col("info").struct, pl.col("choice")
    post = pl.format(
        "SUBREDDIT: r/{}\n\nTITLE: {}\n\nPOST: {}\n\nTL;DR:",
        info.field("subreddit"),
        info.field("title"),
        info.field("post"),
    )
    article = pl.format("{}\n\nTL;DR:", info.field("article"))
    side = lambda k: pl.col("summaries").list.get(k, null_on_oob=True).struct.field("text")  # noqa: E731
    chosen, rejected = (pl.when(choice == k).then(side(0)).otherwise(side(1)) for k in (0, 1))
    return raw.select(
        id=pl.format("summarize-{}", "row"),
        prompt=pair_format.message("user", pl.coalesce(post, article)),
        chosen=pair_format.message("assistant", chosen),
        rejected=pair_format.message("assistant", rejected),
        margin=pl.lit(None, pl.Float64),
        chosen_finished=True,
        rejected_finished=True,
        drop=pair_format.first_rule(
            label_out_of_range=~choice.is_in([0, 1]).fill_null(False),
            not_two_summaries=(pl.col("summaries").list.len() != 2).fill_null(True),
            no_text=pl.coalesce(post, article).is_null(),
        ),
    )


def main(params: Any, name: str, raw: Path, *, preferences: Path, metrics: Path) -> None:
    pair_format.prepare(RELEASE, releases.batches(RELEASE, raw), pairs, name, raw, preferences, metrics)
