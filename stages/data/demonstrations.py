"""Collect what pi_0 is fine-tuned on: conversations that end with a good answer.

Reads   raw: a file, a folder of files or of hub pins (one set each), in one of the forms
            messages or conversations               lists of {role, content} or of {from, value} SYSTEM and input, if
            any, QUESTION, ANSWER   texts under one of the names below; question and answer may be lists of messages,
                                                    as `prompt` and `chosen` of a set of preferences are
        benchmarks: phrase (uint64), and its number of words; reserved: files of prompts that nothing may train on
        (test, validation)
Writes  demonstrations: id, source, prompt, chosen, chosen_finished; earlier turns of a conversation are its prompt
        metrics: {set: dataset, revision, licence, rows_in, rows_out, drops}
Source  the sets: RLHF Workflow, arXiv 2405.07863, appendix B.3
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.data import overlap, pair_format, releases
from stages.messages import MESSAGES

TURNS, QUESTION, ANSWER = (
    ["messages", "conversations"],
    ["instruction", "question", "prompt", "query"],
    ["chosen", "output", "response", "answer"],
)
SYSTEM = ["system", "system_prompt"]
PAIRS = [("from", "value"), ("role", "content")]
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
        kind = found.field(turns).type
        names = (
            set(kind.value_type.names) if hasattr(kind, "value_type") and pa.types.is_struct(kind.value_type) else set()
        )
        pair = next((pair for pair in PAIRS if set(pair) <= names), None)
        if not pair:
            raise ValueError(
                f"{file}: {turns} is {kind}, no list of {' or of '.join(map(str, PAIRS))}; rename its fields"
            )
        return pa.schema([(turns, pa.list_(pa.struct([(name, pa.string()) for name in pair])))])
    if not question or not answer:
        raise ValueError(
            f"{file}: fields {found.names} hold neither one of {TURNS} nor one of {QUESTION} with one of {ANSWER}; rename them"
        )
    fields = [
        (name, pa.string() if releases.is_text(found.field(name).type) else MESSAGES) for name in (question, answer)
    ]
    optional = [(system, pa.string()), ("input", pa.string()), ("chosen_finished", pa.bool_())]
    return pa.schema(fields + [(name, kind) for name, kind in optional if name in found.names])


def conversation(fields: pa.Schema) -> pl.Expr:
    """The messages, the answer last, without empty system messages."""
    if fields.names[0] in TURNS:
        role, content = (pl.element().struct.field(f.name) for f in fields.field(0).type.value_type)
        whole = pl.col(fields.names[0]).list.eval(
            pl.struct(role.replace(ROLES).alias("role"), content.alias("content"))
        )
    else:
        question, answer, system = pl.col(fields.names[0]), pl.col(fields.names[1]), first_of(SYSTEM, fields)
        if releases.is_text(fields.field(0).type):
            more = pl.concat_str(pl.lit("\n\n"), pl.col("input")) if "input" in fields.names else pl.lit("")
            question = pair_format.message(
                "user", pl.concat_str(question, pl.when(more.str.strip_chars() != "").then(more).otherwise(pl.lit("")))
            )
        answer = pair_format.message("assistant", answer) if releases.is_text(fields.field(1).type) else answer
        whole = pl.concat_list(
            *([pair_format.message("system", pl.col(system).fill_null(""))] if system else []), question, answer
        )
    said = pl.element().struct
    return whole.list.filter(
        (said.field("role").ne_missing("system")) | (said.field("content").str.strip_chars() != "")
    )


def judged(raw: pl.DataFrame, fields: pa.Schema, name: str, tests: pl.Series, phrases: overlap.Phrases) -> pl.DataFrame:
    """SCHEMA's columns, `drop`, the rule that refuses a row or null, and the hash of the whole."""
    turns = pl.col("turns")
    made = raw.with_columns(turns=conversation(fields)).select(
        id=pl.format("{}-{}", pl.lit(name), "row"), source=pl.lit(name), prompt=turns.list.head(turns.list.len() - 1), chosen=turns.list.tail(1),
        chosen_finished=pl.col("chosen_finished").fill_null(True) if "chosen_finished" in fields.names else pl.lit(True),
    )  # fmt: skip
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


def main(
    params: Any, raw: Path, benchmarks: Path, reserved: list[Path], *, demonstrations: Path, metrics: Path
) -> None:
    tests, phrases, told = overlap.questions(reserved), overlap.read_phrases(benchmarks), {}
    seen: pl.Series = pl.Series(
        dtype=pl.UInt64
    )  # of the sets before: what a set repeats within itself is its own weight
    with pq.ParquetWriter(demonstrations, SCHEMA) as writer:
        for file in releases.files(raw):
            name, out, drops = releases.name(raw, file), 0, Counter()
            fields, here = declared(releases.peek(file), file), [seen]
            for frame, unread in releases.batches(releases.Release(name, fields), file):
                rows = judged(frame, fields, name, tests, phrases)
                sound = rows.filter(pl.col("drop").is_null())
                fresh = sound.filter(~pl.col("whole").is_in(seen.implode()))
                here.append(fresh["whole"])
                drops += (
                    unread
                    + Counter(rows["drop"].drop_nulls().to_list())
                    + Counter(in_earlier_set=len(sound) - len(fresh))
                )
                out += len(fresh)
                writer.write_table(fresh.select(SCHEMA.names).to_arrow().cast(SCHEMA))
            if not out:
                raise ValueError(
                    f"{file}: no demonstration is left, drops {dict(drops)}; mend the file, or take it out of demonstrations.raw"
                )
            seen, told[name] = pl.concat(here).unique(), account(file, out, drops)
    metrics.write_text(json.dumps(told, indent=2) + "\n")
    print(
        f"demonstrations: {sum(t['rows_out'] for t in told.values()):,} of {sum(t['rows_in'] for t in told.values()):,} rows of {len(told)} sets"
    )
