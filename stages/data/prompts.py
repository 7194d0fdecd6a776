"""Collect the prompts, each once; set test and validation apart, leave the rest as a pool.

Reads   raw: a file, a folder of files or of hub pins, with `messages`, `context_messages` or `prompt`, each messages
        or a text, and `id` where there is one
Writes  pool, validation, test: id, prompt (messages); the pool in the order in which iterations take from it. metrics:
        rows in, out, drops
Params  prompts.validation, prompts.test, in rows
Source  RLHFlow/iterative-prompt-v1 (`context_messages`) has the hub form

It knows nothing of the preferences, so that no set of them moves the test prompts; `filter` keeps these out of the
training data.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.data import overlap, pair_format, releases
from stages.messages import MESSAGES

FORMS = ["messages", "context_messages", "prompt"]
SCHEMA = pa.schema([("id", pa.string()), ("prompt", MESSAGES)])


def declared(found: pa.Schema, file: Path) -> pa.Schema:
    """The fields of the file's form. Raises ValueError for a form it does not know."""
    field = next((name for name in FORMS if name in found.names), None)
    if not field:
        raise ValueError(f"{file}: fields {found.names}, none of them {FORMS}; rename the one that holds the prompt")
    fields = [(field, releases.text_or_messages(found.field(field).type))]
    if "id" in found.names:
        fields.append(("id", pa.int64() if pa.types.is_integer(found.field("id").type) else pa.string()))
    return pa.schema(fields)


def read(raw: Path) -> tuple[pl.DataFrame, Counter]:
    """Rows id, prompt, and what could not be read, by name.

    Raises ValueError for a file that is cut off or of another form.
    """
    frames, drops = [pl.DataFrame(pl.from_arrow(SCHEMA.empty_table()))], Counter()
    for file in releases.files(raw):
        fields = declared(releases.peek(file), file)
        asked, turn = pl.col(fields.names[0]), pl.element().struct
        prompt = pair_format.message("user", asked)
        if fields.field(0).type == MESSAGES:
            prompt = asked.list.eval(pl.struct(turn.field("role"), turn.field("content")))
        number = pl.format("{}-{}", pl.lit(releases.name(raw, file)), "row")
        own_id = pl.coalesce(pl.col("id").cast(pl.String), number) if "id" in fields.names else number
        for frame, unread in releases.batches(releases.Release("prompts", fields), file):
            frames.append(frame.select(id=own_id, prompt=prompt))
            drops += unread
    return pl.concat(frames), drops


def choose(rows: pl.DataFrame) -> tuple[pl.DataFrame, Counter]:
    """Each prompt once, in the order of a hash of its text, which new rows do not disturb; and what was dropped, by
    name.

    Raises ValueError for an id that stands for two prompts.
    """
    judged = rows.with_columns(key=overlap.prompt_key(), drop=pair_format.first_rule(**pair_format.broken()))
    once = judged.filter(pl.col("drop").is_null()).unique("key", keep="first", maintain_order=True)
    twice = once.filter(pl.col("id").is_duplicated())["id"].unique(maintain_order=True)
    if len(twice):
        rule = f"stands for several prompts, and {len(twice) - 1} more ids do"
        raise ValueError(f"id {twice[0]!r} {rule}; an id names one prompt, rename them")
    hashed = once["key"].map_elements(lambda text: hashlib.sha256(text.encode()).hexdigest(), pl.String)
    drops = Counter(judged["drop"].drop_nulls().to_list())
    drops += Counter(duplicate=len(rows) - drops.total() - len(once))
    return once.select("id", "prompt")[hashed.arg_sort()], drops


def main(params: Any, raw: Path, *, pool: Path, validation: Path, test: Path, metrics: Path) -> None:
    rows, drops = read(raw)
    kept, dropped = choose(rows)
    drops += dropped
    first, apart = params.prompts.test, params.prompts.test + params.prompts.validation
    if len(kept) <= apart:
        told = f"{len(kept)} prompts are left, drops {dict(drops)}"
        raise ValueError(f"{told}; test and validation alone take {apart}; lower prompts.test")
    parts = {"test": kept[:first], "validation": kept[first:apart], "pool": kept[apart:]}
    for name, path in {"test": test, "validation": validation, "pool": pool}.items():
        pq.write_table(pa.Table.from_pylist(parts[name].to_dicts(), SCHEMA), path)
    counts = {name: len(part) for name, part in parts.items()}
    facts = {"rows_in": len(kept) + drops.total(), "rows_out": len(kept), **counts, "drops": drops}
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(f"prompts: {facts['rows_in']} -> {counts}, drops {dict(drops)}")
