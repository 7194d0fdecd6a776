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
    fields = [(field, pa.string() if releases.is_text(found.field(field).type) else MESSAGES)]
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
        messages = (
            asked.list.eval(pl.struct(turn.field("role"), turn.field("content")))
            if fields.field(0).type == MESSAGES
            else None
        )
        number = pl.format("{}-{}", pl.lit(releases.name(raw, file)), "row")
        own_id = pl.coalesce(pl.col("id").cast(pl.String), number) if "id" in fields.names else number
        for frame, unread in releases.batches(releases.Release("prompts", fields), file):
            frames.append(
                frame.select(id=own_id, prompt=pair_format.message("user", asked) if messages is None else messages)
            )
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
        raise ValueError(
            f"id {twice[0]!r} stands for several prompts, and {len(twice) - 1} more ids do; an id names one prompt, rename them"
        )
    order = (
        once.select(pl.col("key").map_elements(lambda text: hashlib.sha256(text.encode()).hexdigest(), pl.String))
        .to_series()
        .arg_sort()
    )
    broken = Counter(judged["drop"].drop_nulls().to_list())
    return once.select("id", "prompt")[order], broken + Counter(duplicate=len(rows) - broken.total() - len(once))


def main(params: Any, raw: Path, *, pool: Path, validation: Path, test: Path, metrics: Path) -> None:
    rows, drops = read(raw)
    kept, dropped = choose(rows)
    drops += dropped
    ends = [params.prompts.test, params.prompts.test + params.prompts.validation]
    if len(kept) <= ends[1]:
        raise ValueError(
            f"{len(kept)} prompts are left, drops {dict(drops)}; test and validation alone take {ends[1]}; lower prompts.test"
        )
    for path, part in ((test, kept[: ends[0]]), (validation, kept[ends[0] : ends[1]]), (pool, kept[ends[1] :])):
        pq.write_table(pa.Table.from_pylist(part.to_dicts(), SCHEMA), path)
    counts = {
        "rows_in": len(kept) + drops.total(),
        "rows_out": len(kept),
        "test": ends[0],
        "validation": ends[1] - ends[0],
        "pool": len(kept) - ends[1],
    }
    metrics.write_text(json.dumps(counts | {"drops": drops}, indent=2) + "\n")
    print(
        f"prompts: {counts['rows_in']} -> {counts['pool']} pool, {counts['validation']} validation, {counts['test']} test, drops {dict(drops)}"
    )
