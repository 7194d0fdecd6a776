"""Nectar: seven ranked answers a prompt, for offline DPO.

Reads   raw: prompt (a transcript that ends with an open turn of the assistant), answers [{answer, rank}]
Writes  preferences, metrics: see stages/data/pair_format.py; margin: the difference of the ranks
Rule    rejected: worst (the last rank) or random (any but the first, by a hash of the prompt)
Source  berkeley-nest/Nectar, train, Apache-2.0. The paper gives no rule for its pairs: the first rank is chosen here,
        the other side is by the rule, ours.
"""

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

ANSWERS = pa.list_(pa.struct([("answer", pa.string()), ("rank", pa.float64())]))
RELEASE = releases.Release(
    "nectar", pa.schema([("prompt", pa.string()), ("answers", ANSWERS)]), differs="the paper gives no count and no rule"
)


def pairs(raw: pl.DataFrame, rejected: str) -> pl.DataFrame:
    rank = pl.element().struct.field("rank")
    ranked = raw.with_columns(
        a=pl.col("answers").list.eval(pl.element().sort_by(rank)), t=pair_format.turns(pl.col("prompt"))
    )
    a, t = pl.col("a"), pl.col("t")
    other = (
        pl.lit(-1)
        if rejected == "worst"
        else (1 + pl.col("prompt").hash(seed=0) % (a.list.len() - 1).clip(1)).cast(pl.Int64)
    )
    first, last = a.list.get(0, null_on_oob=True).struct, a.list.get(other, null_on_oob=True).struct
    return ranked.select(
        id=pl.format("nectar-{}", "row"),
        prompt=pair_format.messages(t.list.slice(1, t.list.len() - 2)),
        chosen=pair_format.message("assistant", first.field("answer")),
        rejected=pair_format.message("assistant", last.field("answer")),
        margin=last.field("rank") - first.field("rank"),
        chosen_finished=True,
        rejected_finished=True,
        drop=pair_format.first_rule(
            too_few_answers=(a.list.len() < 2).fill_null(True),
            label_out_of_range=pl.col("answers").list.eval(~rank.is_between(1, 7).fill_null(False)).list.any(),
            not_a_transcript=(
                (t.list.len() < 3) | (t.list.first() != "") | (t.list.last().str.strip_chars() != "A")
            ).fill_null(True),
        ),
    )


def main(params: Any, name: str, raw: Path, rejected: str, *, preferences: Path, metrics: Path) -> None:
    rule = partial(pairs, rejected=rejected)
    pair_format.prepare(RELEASE, releases.batches(RELEASE, raw), rule, name, raw, preferences, metrics)
