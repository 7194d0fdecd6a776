"""The quickstart's raw preferences: what a labelling tool exported, one JSON object a line.

Reads   raw: id, conversation [{from: human|assistant, value}], responses {A, B: {text, finish_reason}}, annotation
        {choice: A|B|tie, strength: 1|2|3}
Writes  preferences, metrics: see stages/data/pair_format.py; margin: the strength of the preference, 0 for a tie
Source  data/raw/quickstart/make_annotations.py made the file

A record of the wrong form is an error, since the tool exports none; ties, empty answers and contradictions are the
filter's business.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

TURNS = pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())]))
RESPONSE = pa.struct([("text", pa.string()), ("finish_reason", pa.string())])
FIELDS = [("id", pa.int64()), ("conversation", TURNS), ("responses", pa.struct([("A", RESPONSE), ("B", RESPONSE)]))]
ANNOTATION = pa.struct([("choice", pa.string()), ("strength", pa.int64())])
RELEASE = releases.Release("quickstart", pa.schema([*FIELDS, ("annotation", ANNOTATION)]))
ROLES = {"human": "user", "assistant": "assistant"}


def check(raw: pl.DataFrame) -> None:
    """Raise ValueError for a record without conversation, two responses or a choice."""
    responses, choice = pl.col("responses").struct, pl.col("annotation").struct.field("choice")
    texts = [responses.field(side).struct.field("text").is_null() for side in "AB"]
    no_choice = ~choice.is_in(["A", "B", "tie"]).fill_null(False)
    wrong = raw.filter(pl.any_horizontal(*texts, pl.col("conversation").is_null(), no_choice))
    if len(wrong):
        rule = "lacks a conversation, the text of a response, or a choice of A, B or tie"
        raise ValueError(f"record {wrong['id'][0]} {rule}; mend or delete it")


def pairs(raw: pl.DataFrame) -> pl.DataFrame:
    check(raw)
    turn, note, responses = pl.element().struct, pl.col("annotation").struct, pl.col("responses").struct
    speaker = pl.struct(
        turn.field("from").replace_strict(ROLES, default=None).alias("role"), turn.field("value").alias("content")
    )
    tie, b = note.field("choice") == "tie", note.field("choice") == "B"
    better, worse = (
        pl.when(second).then(responses.field("B")).otherwise(responses.field("A")).struct for second in (b, ~b)
    )
    return raw.select(
        id=pl.col("id").cast(pl.String),
        prompt=pl.col("conversation").list.eval(speaker),
        chosen=pair_format.message("assistant", better.field("text")),
        rejected=pair_format.message("assistant", worse.field("text")),
        margin=pl.when(tie).then(0.0).otherwise(note.field("strength").cast(pl.Float64)),
        chosen_finished=better.field("finish_reason") == "stop",
        rejected_finished=worse.field("finish_reason") == "stop",
        drop=pl.lit(None, pl.String),
    )


def main(params: Any, name: str, raw: Path, *, preferences: Path, metrics: Path) -> None:
    pair_format.prepare(RELEASE, releases.batches(RELEASE, raw), pairs, name, raw, preferences, metrics)
