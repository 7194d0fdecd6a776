"""UltraInteract: a right and a wrong next step under the same trajectory.

Reads   raw: trajectory [{from, value}], chosen, rejected
Writes  preferences, metrics: see stages/data/pair_format.py
Source  openbmb/UltraInteract_pair, train, MIT: 219,522 rows, of which the paper keeps 161,927 by a filter that is not
        published. Here every row is a pair: its two sides are children of one parent, since they share the trajectory.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

TRAJECTORY = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
RELEASE = releases.Release(
    "ultrainteract",
    pa.schema([("trajectory", TRAJECTORY), ("chosen", pa.string()), ("rejected", pa.string())]),
    pairs=161_927,
    differs="the paper's filter of the 219,522 rows is not published; none is applied here",
)
ROLES = {"user": "user", "assistant": "assistant"}


def pairs(raw: pl.DataFrame) -> pl.DataFrame:
    turn = pl.element().struct
    role = turn.field("from").replace_strict(ROLES, default=None)
    steps = pl.col("trajectory").list.eval(pl.struct(role.alias("role"), turn.field("value").alias("content")))
    return raw.select(
        id=pl.format("ultrainteract-{}", "row"),
        prompt=steps,
        chosen=pair_format.message("assistant", pl.col("chosen")),
        rejected=pair_format.message("assistant", pl.col("rejected")),
        margin=pl.lit(None, pl.Float64),
        chosen_finished=True,
        rejected_finished=True,
        drop=pair_format.first_rule(
            unknown_role=pl.col("trajectory").list.eval(role.is_null()).list.any().fill_null(True)
        ),
    )


def main(params: Any, name: str, raw: Path, *, preferences: Path, metrics: Path) -> None:
    pair_format.prepare(RELEASE, releases.batches(RELEASE, raw), pairs, name, raw, preferences, metrics)
