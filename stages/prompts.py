"""Collect the prompts, each once; set test and validation apart, leave the rest as a pool.

Reads   raw: .jsonl of {id, messages}, or a JSON pin of a hub data set
Writes  pool, validation, test: id, prompt (messages); the pool in the order in which iterations take from it. metrics: rows in, out, drops
Params  prompts.validation, prompts.test, in rows
Source  RLHFlow/iterative-prompt-v1 (`context_messages`) has the hub form

It knows nothing of the preferences, so that no set of them moves the test prompts; `filter` keeps these out of the training data.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages import overlap

SCHEMA = pa.schema([("id", pa.string()), ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])


def keys(prompts: list[list[dict]]) -> list[str]:
    frame = pl.DataFrame(pl.from_arrow(pa.table({"prompt": pa.array(prompts, SCHEMA.field("prompt").type)})))
    return frame.select(overlap.prompt_key()).to_series().to_list()


def read(raw: Path) -> list[dict]:
    """Rows {id, prompt}. Raises ValueError for a file cut off, a record of another form, or an id used twice."""
    if raw.suffix == ".json":
        return read_hub(raw)
    text = raw.read_text(encoding="utf-8")
    if not text.endswith("\n"):
        raise ValueError(f"{raw}: the last line has no end, the file is cut off; copy it again (it has {len(text):,} characters)")
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
            rows.append({"id": record["id"], "prompt": record["messages"]})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{raw}:{number}: not an object with id and messages ({error}); mend or delete the line") from error
    twice = [key for key, count in Counter(row["id"] for row in rows).items() if count > 1]
    if twice:
        raise ValueError(f"{raw}: id {twice[0]!r} stands on several lines, and {len(twice) - 1} more ids do; an id names one prompt, rename them")
    return rows


def read_hub(raw: Path) -> list[dict]:
    """Rows of every data set the pin names ({datasets, revisions, split}), ids numbered. Raises ValueError for an unpinned revision."""
    pin = json.loads(raw.read_text())
    if not pin.get("revisions") or any(len(r or "") != 40 for r in pin["revisions"]):
        raise ValueError(f"{raw}: revisions {pin.get('revisions')} must be 40-digit commits, so that the run can be repeated; pin them")
    import datasets

    sets = [datasets.load_dataset(d, split=pin["split"], revision=r) for d, r in zip(pin["datasets"], pin["revisions"], strict=True)]
    return [{"id": f"{d}-{i}", "prompt": row["context_messages"]} for d, rows in zip(pin["datasets"], sets, strict=True) for i, row in enumerate(rows)]


def choose(rows: list[dict]) -> tuple[list[dict], Counter]:
    """Each prompt once, in the order of a hash of its text, which new rows do not disturb."""
    drops, kept = Counter(duplicate=0, not_a_prompt=0), {}
    for row, key in zip(rows, keys([row["prompt"] for row in rows]), strict=True):
        if not row["prompt"] or row["prompt"][-1]["role"] != "user" or not row["prompt"][-1]["content"].strip():
            drops["not_a_prompt"] += 1
        elif key in kept:
            drops["duplicate"] += 1
        else:
            kept[key] = row
    return [kept[key] for key in sorted(kept, key=lambda key: hashlib.sha256(key.encode()).hexdigest())], drops


def main(params: Any, raw: Path, *, pool: Path, validation: Path, test: Path, metrics: Path) -> None:
    rows = read(raw)
    kept, drops = choose(rows)
    ends = [params.prompts.test, params.prompts.test + params.prompts.validation]
    if len(kept) <= ends[1]:
        raise ValueError(f"{len(kept)} prompts are left, drops {dict(drops)}; test and validation alone take {ends[1]}; lower prompts.test")
    for path, part in ((test, kept[: ends[0]]), (validation, kept[ends[0] : ends[1]]), (pool, kept[ends[1] :])):
        pq.write_table(pa.Table.from_pylist(part, SCHEMA), path)
    counts = {"rows_in": len(rows), "rows_out": len(kept), "test": ends[0], "validation": ends[1] - ends[0], "pool": len(kept) - ends[1], "drops": drops}
    metrics.write_text(json.dumps(counts, indent=2) + "\n")
    print(f"prompts: {len(rows)} -> {counts['pool']} pool, {counts['validation']} validation, {counts['test']} test, drops {dict(drops)}")
