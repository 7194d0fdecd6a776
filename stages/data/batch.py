"""Take an iteration's prompts from the pool and deal them to its shards.

Reads   pool: id, prompt, in the order in which iterations take from it; verdict: of `stop`; `iteration`: t0, t1, ...
Writes  shards: id, prompt; together exactly the iteration's prompts, none once the run is stopped. No two iterations
        share one
Params  prompts.per_iteration, in rows
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def shard_of(row_id: str, shards: int) -> int:
    """A prompt's shard, by a hash of its id: stable whatever else the iteration holds."""
    return int.from_bytes(hashlib.sha256(row_id.encode()).digest()[:4], "big") % shards


def take(pool: list[dict], number: int, rows: int) -> list[dict]:
    """The `number`-th run of `rows` prompts. Raises ValueError when the pool has not so many."""
    part = pool[number * rows : (number + 1) * rows]
    if len(part) < rows:
        raise ValueError(
            f"iteration t{number} wants prompts {number * rows} to {(number + 1) * rows}, the pool has {len(pool)}; lower prompts.per_iteration"
        )
    return part


def main(params: Any, pool: Path, verdict: Path, iteration: str, *, shards: list[Path]) -> None:
    table, stopped = pq.read_table(pool), json.loads(verdict.read_text())["stop"]
    part = [] if stopped else take(table.to_pylist(), int(iteration.removeprefix("t")), params.prompts.per_iteration)
    for k, path in enumerate(shards):
        pq.write_table(
            pa.Table.from_pylist([row for row in part if shard_of(row["id"], len(shards)) == k], table.schema), path
        )
    print(
        f"batch {iteration}: {len(part)} prompts in {len(shards)} shards{', since the run is stopped' if stopped else ''}"
    )
