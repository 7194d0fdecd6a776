"""Lay judged pairs out as candidates, so that whatever scores candidates can be asked which side it prefers.

Reads   heldout, bench: id, prompt, chosen, rejected, chosen_finished, rejected_finished; choices: id, prompt, answers
Writes  candidates: the shards heldout.parquet and reward_bench.parquet, two rows per pair, sample 0 the chosen and 1
        the rejected answer; and where there are choices reward_bench_2.parquet, a row per answer. Scorers see neither
        which is which nor the order (both are tried)
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.messages import MESSAGES

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", MESSAGES),
        ("sample", pa.int32()),
        ("completion", pa.string()),
        ("finished", pa.bool_()),
    ]
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


def laid_out(pairs: Path) -> list[dict]:
    """The candidates of a file of pairs. Raises ValueError for an id that stands twice."""
    rows = pq.read_table(pairs).to_pylist()
    names = {row["id"] for row in rows}
    if len(names) < len(rows):
        raise ValueError(f"{pairs}: {len(rows)} pairs, {len(names)} ids; give each pair an id of its own")
    return [side for row in rows for side in sides(row)]


def answers(choices: Path) -> list[dict]:
    """The candidates of a file of choices: every answer, finished as published."""
    return [
        {"id": row["id"], "prompt": row["prompt"], "sample": k, "completion": text, "finished": True}
        for row in pq.read_table(choices).to_pylist()
        for k, text in enumerate(row["answers"])
    ]


def main(params: Any, heldout: Path, bench: Path, choices: Path, *, candidates: Path) -> None:
    candidates.mkdir()
    made = {"heldout": laid_out(heldout), "reward_bench": laid_out(bench)}
    if found := answers(choices):
        made["reward_bench_2"] = found
    for name, rows in made.items():
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), candidates / f"{name}.parquet")
    pairs = {name: len(rows) // 2 for name, rows in made.items()}
    print(f"pairs_as_candidates: {pairs['heldout']} held-out pairs, {pairs['reward_bench']} of RewardBench")
