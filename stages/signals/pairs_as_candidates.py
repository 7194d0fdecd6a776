"""Lay pairs out as candidates, so that whatever scores candidates can be asked which side it prefers.

Reads   pairs: id, prompt, chosen, rejected, chosen_finished, rejected_finished
Writes  candidates: two rows per pair, sample 0 the chosen and 1 the rejected answer; scorers see neither which is
        which nor the order (both are tried)
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("sample", pa.int32()),
    ]
    + [("completion", pa.string()), ("finished", pa.bool_())]
)


def sides(row: dict) -> list[dict]:
    """A pair as its two candidates."""
    return [
        {
            "id": row["id"],
            "prompt": row["prompt"],
            "sample": k,
            "completion": row[side][0]["content"],
            "finished": row[f"{side}_finished"],
        }
        for k, side in enumerate(("chosen", "rejected"))
    ]


def main(params: Any, pairs: Path, *, candidates: Path) -> None:
    rows = pq.read_table(pairs).to_pylist()
    names = {row["id"] for row in rows}
    if len(names) < len(rows):
        raise ValueError(f"{pairs}: {len(rows)} pairs, {len(names)} ids; give each pair an id of its own")
    pq.write_table(pa.Table.from_pylist([side for row in rows for side in sides(row)], SCHEMA), candidates)
    print(f"contest: {len(rows)} pairs of {pairs}")
