"""Take an iteration's prompts from the pool.

Reads   pool: id, prompt, in the order in which iterations take from it; verdict: of `stop`; `iteration`: the sampled
        policy's name, pi0, pi1, ...
Writes  prompts: id, prompt; none once the run is stopped. No two iterations share one
Params  prompts.per_iteration, in rows
"""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def take(pool: int, number: int, rows: int) -> range:
    """Places of the `number`-th run of `rows` in a pool of so many prompts.

    Raises ValueError when it has not so many.
    """
    first, behind = number * rows, (number + 1) * rows
    if behind > pool:
        told = f"iteration pi{number} wants prompts {first} to {behind}, the pool has {pool}"
        raise ValueError(f"{told}; lower prompts.per_iteration")
    return range(first, behind)


def main(params: Any, pool: Path, verdict: Path, iteration: str, *, prompts: Path) -> None:
    table, stopped = pq.read_table(pool), json.loads(verdict.read_text(encoding="utf-8"))["stop"]
    number = int(iteration.removeprefix("pi"))
    places = range(0) if stopped else take(len(table), number, params.prompts.per_iteration)
    pq.write_table(table.slice(places.start, len(places)), prompts)
    told = ", since the run is stopped" if stopped else ""
    print(f"batch {iteration}: {len(places)} prompts{told}")
