"""Collect what pi_0 is fine-tuned on: conversations that end with a good answer.

Reads   raw: a file, a folder of files or of hub pins (one set each), in one of the forms
            messages or conversations               lists of {role, content} or of {from, value}
            SYSTEM and input, if any, QUESTION,     texts under one of the names below; question and answer may be lists
            ANSWER                                  of messages, as `prompt` and `chosen` of a set of preferences are
        benchmarks: phrase (uint64), and its number of words; reserved: files of prompts that nothing may train on
        (test, validation)
Writes  demonstrations: id, source, prompt, chosen, chosen_finished; earlier turns of a conversation are its prompt
        metrics: {set: dataset, revision, licence, rows_in, rows_out, drops}
Source  the sets: RLHF Workflow, arXiv 2405.07863, appendix B.3
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.data import overlap, pair_format, releases

TURNS = ["messages", "conversations"]
QUESTION = ["instruction", "question", "prompt", "query"]
ANSWER = ["chosen", "output", "response", "answer"]
SYSTEM = ["system", "system_prompt"]
PAIRS = [("from", "value"), ("role", "content")]
Judged = tuple[pl.DataFrame, Counter]
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}
SCHEMA = pa.schema(
    [field for field in pair_format.SCHEMA if field.name in ("id", "source", "prompt", "chosen", "chosen_finished")]
)


def first_of(names: list[str], found: pa.Schema) -> str | None:
    return next((name for name in names if name in found.names), None)


def declared(found: pa.Schema, file: Path) -> pa.Schema:
    """The fields of this set's form. Raises ValueError for a form it does not know."""
    turns, question, answer, system = (first_of(names, found) for names in (TURNS, QUESTION, ANSWER, SYSTEM))
    if turns:
        return pa.schema([(turns, declared_turns(found.field(turns), file))])
    if not question or not answer:
        rule = f"hold neither one of {TURNS} nor one of {QUESTION} with one of {ANSWER}"
        raise ValueError(f"{file}: fields {found.names} {rule}; rename them")
    kinds = {name: releases.text_or_messages(found.field(name).type) for name in (question, answer)}
    optional = {system: pa.string(), "input": pa.string(), "chosen_finished": pa.bool_()}
    return pa.schema(kinds | {name: kind for name, kind in optional.items() if name in found.names})


def declared_turns(found: pa.Field, file: Path) -> pa.DataType:
    """A list of turns with one of the PAIRS of fields. Raises ValueError for another list."""
    turn = getattr(found.type, "value_type", None)
    names = set(turn.names) if turn is not None and pa.types.is_struct(turn) else set()
    pair = next((pair for pair in PAIRS if set(pair) <= names), None)
    if not pair:
        known = " or of ".join(map(str, PAIRS))
        raise ValueError(f"{file}: {found.name} is {found.type}, no list of {known}; rename its fields")
    return pa.list_(pa.struct([(name, pa.string()) for name in pair]))


def conversation(fields: pa.Schema) -> pl.Expr:
    """The messages, the answer last, without empty system messages."""
    said = pl.element().struct
    whole = turns(fields) if fields.names[0] in TURNS else question_and_answer(fields)
    is_silent = said.field("content").str.strip_chars() == ""
    return whole.list.filter(said.field("role").ne_missing("system") | ~is_silent)


def turns(fields: pa.Schema) -> pl.Expr:
    """A list of turns as messages."""
    role, content = (pl.element().struct.field(field.name) for field in fields.field(0).type.value_type)
    message = pl.struct(role.replace(ROLES).alias("role"), content.alias("content"))
    return pl.col(fields.names[0]).list.eval(message)


def question_and_answer(fields: pa.Schema) -> pl.Expr:
    """System, question with its input behind it, and answer as messages; the latter two may be messages already."""
    question, answer = pl.col(fields.names[0]), pl.col(fields.names[1])
    if releases.is_text(fields.field(0).type):
        more = pl.concat_str(pl.lit("\n\n"), pl.col("input")) if "input" in fields.names else pl.lit("")
        behind = pl.when(more.str.strip_chars() != "").then(more).otherwise(pl.lit(""))
        question = pair_format.message("user", pl.concat_str(question, behind))
    if releases.is_text(fields.field(1).type):
        answer = pair_format.message("assistant", answer)
    system = first_of(SYSTEM, fields)
    before = [pair_format.message("system", pl.col(system).fill_null(""))] if system else []
    return pl.concat_list(*before, question, answer)


def judged(raw: pl.DataFrame, fields: pa.Schema, name: str, tests: pl.Series, phrases: overlap.Phrases) -> pl.DataFrame:
    """SCHEMA's columns, `drop`, the rule that refuses a row or null, and the hash of the whole."""
    whole, finished = pl.col("turns"), pl.lit(True)
    if "chosen_finished" in fields.names:
        finished = pl.col("chosen_finished").fill_null(True)
    made = raw.with_columns(turns=conversation(fields)).select(
        id=pl.format("{}-{}", pl.lit(name), "row"),
        source=pl.lit(name),
        prompt=whole.list.head(whole.list.len() - 1),
        chosen=whole.list.tail(1),
        chosen_finished=finished,
    )
    no_answer = (pl.col("chosen").list.last().struct.field("role") != "assistant").fill_null(True)
    found = {
        "in_test": overlap.question_hash().is_in(tests.implode()),
        "in_benchmark": pl.Series(overlap.holds(made, phrases)),
    }
    return made.with_columns(
        drop=pair_format.first_rule(no_answer=no_answer, **pair_format.broken("chosen"), **found),
        whole=pl.concat_str(overlap.prompt_key(), pl.lit("\n"), pair_format.answer("chosen")).hash(),
    )


def account(file: Path, rows_out: int, drops: Counter) -> dict[str, Any]:
    pin = releases.read_pin(file) if file.suffix == ".json" else {"dataset": str(file)}
    told = {name: pin.get(name) for name in ("dataset", "revision", "licence")}
    return told | {"rows_in": rows_out + drops.total(), "rows_out": rows_out, "drops": dict(drops)}


def judged_set(file: Path, raw: Path, tests: pl.Series, phrases: overlap.Phrases) -> Iterator[Judged]:
    """The rows of one set, a batch at a time, as `judged` has them, and what could not be read."""
    name, fields = releases.name(raw, file), declared(releases.peek(file), file)
    for frame, unread in releases.batches(releases.Release(name, fields), file):
        yield judged(frame, fields, name, tests, phrases), unread


def main(
    params: Any, raw: Path, benchmarks: Path, reserved: list[Path], *, demonstrations: Path, metrics: Path
) -> None:
    tests, phrases, told = overlap.questions(reserved), overlap.read_phrases(benchmarks), {}
    # of the sets before: what a set repeats within itself is its own weight
    seen: pl.Series = pl.Series(dtype=pl.UInt64)
    with pq.ParquetWriter(demonstrations, SCHEMA) as writer:
        for file in releases.files(raw):
            out, drops, here = 0, Counter(), [seen]
            for rows, unread in judged_set(file, raw, tests, phrases):
                sound = rows.filter(pl.col("drop").is_null())
                fresh = sound.filter(~pl.col("whole").is_in(seen.implode()))
                drops += unread + Counter(rows["drop"].drop_nulls().to_list())
                drops += Counter(in_earlier_set=len(sound) - len(fresh))
                here.append(fresh["whole"])
                out += len(fresh)
                writer.write_table(fresh.select(SCHEMA.names).to_arrow().cast(SCHEMA))
            if not out:
                remedy = "mend the file, or take it out of demonstrations.raw"
                raise ValueError(f"{file}: no demonstration is left, drops {dict(drops)}; {remedy}")
            seen = pl.concat(here).unique()
            told[releases.name(raw, file)] = account(file, out, drops)
    metrics.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    kept, of = (sum(fact[count] for fact in told.values()) for count in ("rows_out", "rows_in"))
    print(f"demonstrations: {kept:,} of {of:,} rows of {len(told)} sets")
