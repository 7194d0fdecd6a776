"""Read the quickstart's raw preferences: what a labelling tool exported, one JSON object a line.

Reads   raw .jsonl: id, conversation [{from: human|assistant, value}], responses {A, B: {text, finish_reason}}, annotation {choice: A|B|tie, strength: 1|2|3}
Writes  preferences: one row per labelled pair (SCHEMA); metrics: rows in, out, drops by name
Source  data/raw/quickstart/make_annotations.py made the file

This module alone knows the raw format, and judges nothing: ties, empty turns and contradictions are the filter's business. A line
that is not JSON is a drop, for one such line should not cost the other hundreds; a line of the wrong form is an error.
"""

import json
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
ROLES = {"human": "user", "assistant": "assistant"}


def to_row(record: dict) -> dict:
    """One exported record to one row of SCHEMA; a tie keeps A as chosen. Raises KeyError for a field that is missing."""
    choice = record["annotation"]["choice"]
    if choice not in ("A", "B", "tie"):
        raise KeyError(f"choice A, B or tie, not {choice!r}")
    chosen, rejected = ("B", "A") if choice == "B" else ("A", "B")
    sides = record["responses"]
    return {
        "id": str(record["id"]),
        "source": "quickstart",
        "prompt": [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in record["conversation"]],
        "chosen": [{"role": "assistant", "content": sides[chosen]["text"]}],
        "rejected": [{"role": "assistant", "content": sides[rejected]["text"]}],
        "tie": choice == "tie",
        "strength": record["annotation"]["strength"],
        "chosen_finished": sides[chosen]["finish_reason"] == "stop",
        "rejected_finished": sides[rejected]["finish_reason"] == "stop",
    }


def read_lines(raw: Path) -> tuple[list[dict], Counter]:
    """Rows of the file and the drops. Raises ValueError for a file cut off in the middle of a line, or a record of the wrong form."""
    text = raw.read_bytes().decode("utf-8", errors="strict")
    if not text.endswith("\n"):
        raise ValueError(f"{raw}: the last line has no end, the file is cut off; copy it again (it has {len(text):,} characters)")
    rows, drops = [], Counter({"not_json": 0})
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            drops["not_json"] += 1
            continue
        try:
            rows.append(to_row(record))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{raw}:{number}: no usable {error}; every record needs conversation, two responses and a choice; mend or delete it") from error
    return rows, drops


def main(params: Any, raw: Path, *, preferences: Path, metrics: Path) -> None:
    rows, drops = read_lines(raw)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), preferences)
    metrics.write_text(json.dumps({"rows_in": len(rows) + drops.total(), "rows_out": len(rows), "drops": drops}, indent=2) + "\n")
    print(f"prepare quickstart: {len(rows) + drops.total()} records -> {len(rows)} pairs, drops {dict(drops)}")
