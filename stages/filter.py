"""Drop the preference pairs that teach nothing or teach wrongly, and split the rest by prompt.

Reads   preferences: id, prompt, chosen, rejected (messages), tie, strength, chosen_finished, rejected_finished
Writes  train, heldout: the same columns but `tie` and `strength`; no prompt stands in both. metrics: rows in, out, drops by rule
Params  filter.heldout_share, share of prompts; filter.min_strength, the weakest preference kept, of those whose strength is known
Source  "remove empty rounds, incorrect labels, small margins", RLHF Workflow, arXiv 2405.07863, section 2
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

RULES = ["empty_turn", "broken_alternation", "identical_sides", "tie", "small_margin", "duplicate", "contradictory"]


def prompt_key(prompt: list[dict]) -> str:
    """The prompt with case and spacing folded: what makes two prompts the same one."""
    return "\n".join(f"{m['role']}: {' '.join(m['content'].lower().split())}" for m in prompt)


def own_fault(row: dict, min_strength: int) -> str | None:
    """The rule that a row breaks by itself, if any."""
    turns = [*row["prompt"], *row["chosen"], *row["rejected"]]
    roles = [m["role"] for m in row["prompt"] if m["role"] != "system"]
    if not all((m["content"] or "").strip() for m in turns):
        return "empty_turn"
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        return "broken_alternation"
    if row["chosen"][0]["content"].strip() == row["rejected"][0]["content"].strip():
        return "identical_sides"
    if row["tie"]:
        return "tie"
    return "small_margin" if row["strength"] is not None and row["strength"] < min_strength else None


def clean(rows: list[dict], min_strength: int) -> tuple[list[dict], Counter]:
    """Rows that keep every rule, in order, and how many each rule took. Of a contradiction all rows go: none is known to be right."""
    drops = Counter(dict.fromkeys(RULES, 0))
    sound = [row for row in rows if not (fault := own_fault(row, min_strength)) or drops.update([fault])]
    labels = {label(row) for row in sound}
    kept, seen = [], set()
    for row in sound:
        prompt, chosen, rejected = label(row)
        if (prompt, rejected, chosen) in labels:
            drops["contradictory"] += 1
        elif label(row) in seen:
            drops["duplicate"] += 1
        else:
            seen.add(label(row))
            kept.append(row)
    return kept, drops


def label(row: dict) -> tuple[str, str, str]:
    return prompt_key(row["prompt"]), row["chosen"][0]["content"].strip(), row["rejected"][0]["content"].strip()


def is_heldout(prompt: list[dict], share: float) -> bool:
    """Decided by a hash of the prompt, so that all its pairs fall on one side and new rows move no old ones."""
    return int.from_bytes(hashlib.sha256(prompt_key(prompt).encode()).digest()[:4], "big") < share * 2**32


def main(params: Any, preferences: Path, *, train: Path, heldout: Path, metrics: Path) -> None:
    table = pq.read_table(preferences)
    rows, drops = clean(table.to_pylist(), params.filter.min_strength)
    sides = {True: [], False: []}
    for row in rows:
        sides[is_heldout(row["prompt"], params.filter.heldout_share)].append(row)
    if not sides[True] or not sides[False]:
        raise ValueError(f"{table.num_rows} pairs leave {len(sides[False])} to train and {len(sides[True])} held out, drops {dict(drops)}; both need some")
    schema = pa.schema([field for field in table.schema if field.name not in ("tie", "strength")])
    pq.write_table(pa.Table.from_pylist(sides[False], schema), train)
    pq.write_table(pa.Table.from_pylist(sides[True], schema), heldout)
    counts = {"rows_in": table.num_rows, "rows_out": len(rows), "train": len(sides[False]), "heldout": len(sides[True]), "drops": drops}
    metrics.write_text(json.dumps(counts, indent=2) + "\n")
    print(f"filter: {table.num_rows} pairs -> {len(sides[False])} train, {len(sides[True])} held out, drops {dict(drops)}")
