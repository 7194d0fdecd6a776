"""Collect the prompts: each once, none that the preference pairs hold; set test and validation apart, leave the rest as a pool.

Reads   raw: .jsonl of {id, messages}, or a JSON pin of a hub data set; preferences: all raw pairs, for their prompts, so that no filter moves the test set
Writes  pool, validation, test: id, prompt (messages); the pool in the order in which iterations take from it. metrics: rows in, out, drops
Params  prompts.validation, prompts.test, in rows
Source  RLHFlow/iterative-prompt-v1 (`context_messages`) has the hub form
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema([("id", pa.string()), ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])


def prompt_key(prompt: list[dict]) -> str:
    """The prompt with case and spacing folded: what makes two prompts the same one (as in filter.py)."""
    return "\n".join(f"{m['role']}: {' '.join(m['content'].lower().split())}" for m in prompt)


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


def choose(rows: list[dict], taken: set[str]) -> tuple[list[dict], Counter]:
    """Each prompt once and none of `taken`, in the order of a hash of its text, which new rows do not disturb."""
    drops, kept, seen = Counter(in_preferences=0, duplicate=0, not_a_prompt=0), [], set()
    for row in rows:
        key = prompt_key(row["prompt"])
        if not row["prompt"] or row["prompt"][-1]["role"] != "user" or not row["prompt"][-1]["content"].strip():
            drops["not_a_prompt"] += 1
        elif key in taken:
            drops["in_preferences"] += 1
        elif key in seen:
            drops["duplicate"] += 1
        else:
            seen.add(key)
            kept.append(row)
    return sorted(kept, key=lambda row: hashlib.sha256(prompt_key(row["prompt"]).encode()).hexdigest()), drops


def main(params: Any, raw: Path, preferences: Path, *, pool: Path, validation: Path, test: Path, metrics: Path) -> None:
    rows = read(raw)
    taken = {prompt_key(p) for p in pq.read_table(preferences, columns=["prompt"])["prompt"].to_pylist()}
    kept, drops = choose(rows, taken)
    ends = [params.prompts.test, params.prompts.test + params.prompts.validation]
    if len(kept) <= ends[1]:
        raise ValueError(f"{len(kept)} prompts are left, drops {dict(drops)}; test and validation alone take {ends[1]}; lower prompts.test")
    for path, part in ((test, kept[: ends[0]]), (validation, kept[ends[0] : ends[1]]), (pool, kept[ends[1] :])):
        pq.write_table(pa.Table.from_pylist(part, SCHEMA), path)
    counts = {"rows_in": len(rows), "rows_out": len(kept), "test": ends[0], "validation": ends[1] - ends[0], "pool": len(kept) - ends[1], "drops": drops}
    metrics.write_text(json.dumps(counts, indent=2) + "\n")
    print(f"prompts: {len(rows)} -> {counts['pool']} pool, {counts['validation']} validation, {counts['test']} test, drops {dict(drops)}")
