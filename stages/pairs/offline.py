"""Choose D_off, the raw pairs that the offline baseline trains on and that the history of iterations starts from.

Reads   train: filtered preference pairs
Writes  pairs: the same columns as `rank` writes, margin 0 (a label says which side won, not by how much)
Params  offline.pairs, how many; null for all
Raises  ValueError where there are fewer: a smaller budget than the one asked for would flatter the iterations
"""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.messages import MESSAGES

SCHEMA = pa.schema(
    [("id", pa.string()), ("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES), ("margin", pa.float64())]
    + [("chosen_finished", pa.bool_()), ("rejected_finished", pa.bool_()), ("made_in", pa.string())]
)


def choose(rows: list[dict], number: int | None) -> list[dict]:
    """The first `number` rows in the order of a hash of their ids: a sample that does not depend on the order of the
    file.
    """
    ordered = sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).hexdigest())
    return [{**row, "margin": 0.0, "made_in": "offline"} for row in ordered[:number]]


def main(params: Any, train: Path, *, pairs: Path) -> None:
    rows, wanted = pq.read_table(train).to_pylist(), params.offline.pairs
    if wanted and len(rows) < wanted:
        remedy = "lower it, set null for all, or let the filter keep more"
        raise ValueError(f"offline.pairs = {wanted}, and {train} has {len(rows)}; {remedy}")
    chosen = choose(rows, wanted)
    pq.write_table(pa.Table.from_pylist(chosen, SCHEMA), pairs)
    print(f"offline: {len(chosen)} of {len(rows)} raw pairs")
