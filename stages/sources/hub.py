"""Read a hub data set of preferences in the standard form: `chosen` and `rejected` as message lists that share their context.

Reads   raw: a JSON pin {"dataset", "revision", "split"}, the revision a 40-digit commit
Writes  preferences: one row per pair, as every source does; metrics: rows in, out, drops by name
Source  RLHFlow's standard format: {role, content} messages, the last one the answer
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("tie", pa.bool_()),
        ("strength", pa.int32()),
    ]
    + [("chosen_finished", pa.bool_()), ("rejected_finished", pa.bool_())]
)


def to_row(name: str, index: int, record: dict) -> dict | None:
    """One record to one row; None where the two sides answer different contexts."""
    chosen, rejected = record["chosen"], record["rejected"]
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        return None
    return {
        "id": f"{name}-{index}", "source": name, "prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:],
        "tie": False, "strength": None, "chosen_finished": True, "rejected_finished": True,
    }  # fmt: skip


def read_pin(raw: Path) -> dict[str, str]:
    """The pin. Raises ValueError unless it names data set, 40-digit revision and split."""
    pin = json.loads(raw.read_text())
    if not re.fullmatch(r"[0-9a-f]{40}", pin.get("revision") or "") or not pin.get("dataset") or not pin.get("split"):
        raise ValueError(f"{raw}: {pin} must name dataset, split and the 40-digit commit as revision, so that the run can be repeated; pin it")
    return pin


def main(params: Any, raw: Path, *, preferences: Path, metrics: Path) -> None:
    pin = read_pin(raw)
    import datasets

    records = datasets.load_dataset(pin["dataset"], split=pin["split"], revision=pin["revision"])
    rows = [to_row(pin["dataset"], i, dict(record)) for i, record in enumerate(records)]
    kept = [row for row in rows if row]
    drops = Counter({"context_differs": len(rows) - len(kept)})
    pq.write_table(pa.Table.from_pylist(kept, SCHEMA), preferences)
    metrics.write_text(json.dumps({"rows_in": len(rows), "rows_out": len(kept), "drops": drops}, indent=2) + "\n")
    print(f"prepare hub: {len(rows):,} records -> {len(kept):,} pairs, drops {dict(drops)}")
