"""Collect what pi_0 is fine-tuned on: conversations that end with a good answer.

Reads   raw: a file, a folder of files or of hub pins (one set each), in one of the forms
            messages or conversations     the whole conversation
            a question and ANSWER         in the ways of stages/data/dialogue.py, as `prompt` and `chosen` of a set of
                                          preferences are
        benchmarks: phrase (uint64), and its number of words; reserved: files of prompts that nothing may train on
        (test, validation); model: the base model, for its template
Writes  demonstrations: id, source, prompt, chosen, chosen_finished; earlier turns of a conversation are its prompt
        metrics: {set: dataset, revision, licence, rows_in, rows_out, drops}
Source  the sets: RLHF Workflow, arXiv 2405.07863, appendix B.3
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.data import conversation_rules, dialogue, overlap, pair_format, releases

TURNS = ["messages", "conversations"]
ANSWER = ["chosen", "output", "response", "answer"]
Judged = tuple[pl.DataFrame, Counter]
SCHEMA = pa.schema(
    [field for field in pair_format.SCHEMA if field.name in ("id", "source", "prompt", "chosen", "chosen_finished")]
)


def declared(found: pa.Schema, file: Path) -> pa.Schema:
    """The fields of this set's form. Raises ValueError for a form it does not know."""
    turns, answer = (dialogue.first_of(names, found) for names in (TURNS, ANSWER))
    if turns:
        return pa.schema([dialogue.declared(found.field(turns), file)])
    question = dialogue.asking(found, file)
    if not question or not answer:
        rule = f"hold neither one of {TURNS} nor one of {dialogue.QUESTION} with one of {ANSWER}"
        raise ValueError(f"{file}: fields {found.names} {rule}; rename them")
    finished = [pa.field("chosen_finished", pa.bool_())] if "chosen_finished" in found.names else []
    return pa.schema([dialogue.declared(found.field(answer), file), *question, *finished])


def conversation(fields: pa.Schema) -> pl.Expr:
    """The messages, the answer last."""
    said = dialogue.messages(fields.field(0), "assistant")
    return said if fields.names[0] in TURNS else pl.concat_list(dialogue.asked(fields), said)


class Rules(NamedTuple):
    """What no demonstration may be: a test prompt, a benchmark's, or one that the template does not take."""

    tests: pl.Series
    phrases: overlap.Phrases
    template: conversation_rules.Template


def judged(raw: pl.DataFrame, fields: pa.Schema, name: str, rules: Rules) -> pl.DataFrame:
    """SCHEMA's columns, `drop`, the rule that refuses a row or null, and the hash of the whole."""
    whole, finished = pl.col("turns"), pl.lit(True)
    if "chosen_finished" in fields.names:
        finished = pl.col("chosen_finished").fill_null(True)
    made = raw.with_columns(turns=conversation(fields)).select(
        id=pl.format("{}-{}", pl.lit(name), "row"),
        source=pl.lit(name),
        prompt=conversation_rules.fitted(whole.list.head(whole.list.len() - 1), rules.template),
        chosen=whole.list.tail(1),
        chosen_finished=finished,
    )
    no_answer = (pl.col("chosen").list.last().struct.field("role") != "assistant").fill_null(True)
    found = {
        "in_test": overlap.question_hash().is_in(rules.tests.implode()),
        "in_benchmark": pl.Series(overlap.holds(made, rules.phrases)),
    }
    return made.with_columns(
        drop=pair_format.first_rule(
            no_answer=no_answer, **conversation_rules.broken("chosen", template=rules.template), **found
        ),
        whole=pl.concat_str(overlap.prompt_key(), pl.lit("\n"), pair_format.answer("chosen")).hash(),
    )


def account(file: Path, rows_out: int, drops: Counter) -> dict[str, Any]:
    pin = releases.read_pin(file) if file.suffix == ".json" else {"dataset": str(file)}
    told = {name: pin.get(name) for name in ("dataset", "revision", "licence")}
    return told | {"rows_in": rows_out + drops.total(), "rows_out": rows_out, "drops": dict(drops)}


def judged_set(file: Path, raw: Path, rules: Rules) -> Iterator[Judged]:
    """The rows of one set, a batch at a time, as `judged` has them, and what could not be read."""
    name, fields = releases.name(raw, file), declared(releases.peek(file), file)
    for frame, unread in releases.batches(releases.Release(name, fields), file):
        yield judged(frame, fields, name, rules), unread


def main(
    params: Any, raw: Path, benchmarks: Path, reserved: list[Path], model: Path, *, demonstrations: Path, metrics: Path
) -> None:
    template, told = conversation_rules.read(model), {}
    rules = Rules(overlap.questions(reserved), overlap.read_phrases(benchmarks), template)
    # of the sets before: what a set repeats within itself is its own weight
    seen: pl.Series = pl.Series(dtype=pl.UInt64)
    with pq.ParquetWriter(demonstrations, SCHEMA) as writer:
        for file in releases.files(raw):
            out, drops, here = 0, Counter(), [seen]
            for rows, unread in judged_set(file, raw, rules):
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
