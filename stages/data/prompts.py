"""Collect the prompts, each once; set test and validation apart, leave the rest as a pool.

Reads   raw: a file, a folder of files or of hub pins, with `messages`, `context_messages` or `prompt`, each messages
        or a text, and `id` where there is one; model: the base model, for its tokenizer and template
Writes  pool, validation, test: id, prompt (messages); the pool in the order in which iterations take from it. metrics:
        rows in, out, drops
Params  prompts.validation, prompts.test, in rows; prompts.max_tokens, of a prompt as the template renders it
Source  RLHFlow/iterative-prompt-v1 (`context_messages`) has the hub form

It knows nothing of the preferences, so that no set of them moves the test prompts; `filter` keeps these out of the
training data.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.data import conversation_rules, dialogue, overlap, pair_format, releases
from stages.messages import MESSAGES

FORMS = ["messages", "context_messages", "prompt"]
SCHEMA = pa.schema([("id", pa.string()), ("prompt", MESSAGES)])


def declared(found: pa.Schema, file: Path) -> pa.Schema:
    """The fields of the file's form. Raises ValueError for a form it does not know."""
    field = next((name for name in FORMS if name in found.names), None)
    if not field:
        raise ValueError(f"{file}: fields {found.names}, none of them {FORMS}; rename the one that holds the prompt")
    return pa.schema([dialogue.declared(found.field(field), file), *dialogue.named(found)])


def open_turns(said: pl.Expr) -> pl.Expr:
    """The conversation up to the last thing asked: where a file has an answer behind it, that is nobody's prompt."""
    answered = said.list.last().struct.field("role") == "assistant"
    return pl.when(answered).then(said.list.head(said.list.len() - 1)).otherwise(said)


def read(raw: Path) -> tuple[pl.DataFrame, Counter]:
    """Rows id, prompt, and what could not be read, by name.

    Raises ValueError for a file that is cut off or of another form.
    """
    frames, drops = [pl.DataFrame(pl.from_arrow(SCHEMA.empty_table()))], Counter()
    for file in releases.files(raw):
        fields = declared(releases.peek(file), file)
        prompt = open_turns(dialogue.messages(fields.field(0), "user"))
        number = pl.format("{}-{}", pl.lit(releases.name(raw, file)), "row")
        own_id = pl.coalesce(pl.col("id").cast(pl.String), number) if "id" in fields.names else number
        for frame, unread in releases.batches(releases.Release("prompts", fields), file):
            frames.append(frame.select(id=own_id, prompt=prompt))
            drops += unread
    return pl.concat(frames), drops


def too_long(rows: pl.DataFrame, model: Path, max_tokens: int) -> pl.Series:
    """Rows (N,) bool whose prompt, with what the template puts around its messages, has more tokens."""
    from tokenizers import Tokenizer

    tokenizer, template = Tokenizer.from_file(str(model / "tokenizer.json")), conversation_rules.read(model)
    said = rows.select(pl.col("prompt").list.eval(conversation_rules.SAID.field("content"))).to_series()
    texts = said.explode(empty_as_null=False).fill_null("").to_list()
    tokens = [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    turns = said.list.len().fill_null(0).to_numpy()
    ends, summed = np.cumsum(turns), np.concatenate([[0], np.cumsum(tokens)])
    lengths = summed[ends] - summed[ends - turns] + template.first + template.more * (turns - 1)
    return pl.Series(lengths > max_tokens)


def choose(rows: pl.DataFrame, model: Path, max_tokens: int) -> tuple[pl.DataFrame, Counter]:
    """Each prompt once, in the order of a hash of its text, which new rows do not disturb; and what was dropped, by
    name.

    Raises ValueError for an id that stands for two prompts.
    """
    template = conversation_rules.read(model)
    fitted = rows.with_columns(prompt=conversation_rules.fitted(pl.col("prompt"), template))
    refused = pair_format.first_rule(**conversation_rules.broken(template=template))
    judged = fitted.with_columns(key=overlap.prompt_key(), drop=refused)
    long = too_long(judged, model, max_tokens)
    judged = judged.with_columns(drop=pl.coalesce("drop", pl.when(long).then(pl.lit("over_max_tokens"))))
    once = judged.filter(pl.col("drop").is_null()).unique("key", keep="first", maintain_order=True)
    twice = once.filter(pl.col("id").is_duplicated())["id"].unique(maintain_order=True)
    if len(twice):
        rule = f"stands for several prompts, and {len(twice) - 1} more ids do"
        raise ValueError(f"id {twice[0]!r} {rule}; an id names one prompt, rename them")
    hashed = once["key"].map_elements(lambda text: hashlib.sha256(text.encode()).hexdigest(), pl.String)
    drops = Counter(judged["drop"].drop_nulls().to_list())
    drops += Counter(duplicate=len(rows) - drops.total() - len(once))
    return once.select("id", "prompt")[hashed.arg_sort()], drops


def main(params: Any, raw: Path, model: Path, *, pool: Path, validation: Path, test: Path, metrics: Path) -> None:
    rows, drops = read(raw)
    kept, dropped = choose(rows, model, params.prompts.max_tokens)
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
