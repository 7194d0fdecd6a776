"""The one form that all sets of preferences share, and what the modules of stages/data/sources build it with.

A source is a function from a batch of raw rows to a frame with SCHEMA's columns but `source`, and `drop`: the rule
that refuses the row, or null. It judges only what its release defines as no pair; what no release should hold (empty
turns, duplicates, ...) is the filter's business.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from stages.data import conversation_rules, releases
from stages.messages import MESSAGES

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("margin", pa.float64()),
        ("chosen_finished", pa.bool_()),
        ("rejected_finished", pa.bool_()),
    ]
)
"""margin is chosen's score less rejected's, in the source's own unit; 0 is a tie, null where no score is known."""
Pairs = Callable[[pl.DataFrame], pl.DataFrame]


def stored(file: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a set or a mix, a batch at a time."""
    return pq.ParquetFile(file, pre_buffer=False).iter_batches(releases.BATCH)


def message(role: str, content: pl.Expr) -> pl.Expr:
    """A list of one message."""
    return pl.concat_list(pl.struct(pl.lit(role).alias("role"), content.alias("content")))


def first_rule(**rules: pl.Expr) -> pl.Expr:
    """The name of the first rule that holds, null where none does: a `drop` column."""
    return pl.coalesce(*(pl.when(broken).then(pl.lit(name)) for name, broken in rules.items()), pl.lit(None, pl.String))


def answer(side: str) -> pl.Expr:
    return pl.col(side).list.last().struct.field("content").str.strip_chars()


TURN = "\ue000"  # of the private use area: stands before every turn while a transcript is cut


def turns(transcript: pl.Expr) -> pl.Expr:
    """A transcript "\\n\\nHuman: ...\\n\\nAssistant: ..." as a list: what stands before the first turn, then each turn
    as H or A and its text.
    """
    for speaker, letter in (("Human", "H"), ("Assistant", "A")):
        transcript = transcript.str.replace_all(f"\n\n{speaker}:", f"{TURN}{letter}", literal=True)
    return transcript.str.split(TURN)


def messages(turns: pl.Expr) -> pl.Expr:
    """Turns as messages."""
    turn = pl.element()
    role = pl.when(turn.str.starts_with("H")).then(pl.lit("user")).otherwise(pl.lit("assistant"))
    return turns.list.eval(pl.struct(role.alias("role"), turn.str.slice(1).str.strip_chars().alias("content")))


def all_pairs(name: str, answers: pl.DataFrame) -> pl.DataFrame:
    """Every two answers to one prompt, the higher score chosen: from `row`, `prompt` (messages), `k` (the answer's
    number), `text`, `score` (null: not rated).

    A prompt with fewer than two answers is one row with a drop of that name; a tie has margin 0 and is the filter's.
    """
    both = answers.join(answers.drop("prompt"), on="row", suffix="_b", maintain_order="left_right").filter(
        pl.col("k") < pl.col("k_b")
    )
    first = pl.col("score") >= pl.col("score_b")
    better, worse = (pl.when(side).then("text").otherwise("text_b") for side in (first, ~first))
    made = both.select(
        id=pl.format(f"{name}-{{}}-{{}}-{{}}", "row", "k", "k_b"),
        prompt="prompt",
        chosen=message("assistant", better),
        rejected=message("assistant", worse),
        margin=(pl.col("score") - pl.col("score_b")).abs(),
        chosen_finished=True,
        rejected_finished=True,
        drop=first_rule(not_rated=pl.col("score").is_null() | pl.col("score_b").is_null()),
    )
    single = answers.join(both, on="row", how="anti").unique("row", keep="first", maintain_order=True)
    none = pl.lit(None, made.schema["chosen"])
    alone = single.select(
        id=pl.format(f"{name}-{{}}", "row"),
        prompt="prompt",
        chosen=none,
        rejected=none,
        margin=pl.lit(None, pl.Float64),
        chosen_finished=True,
        rejected_finished=True,
        drop=pl.lit("too_few_answers"),
    )
    return pl.concat([made, alone])


def prepare(
    release: releases.Release,
    frames: releases.Batches,
    pairs: Pairs,
    name: str,
    raw: Path,
    preferences: Path,
    metrics: Path,
) -> None:
    """Write the pairs that `pairs` makes of the raw rows, and the account; `name` is the set's in the mix.

    Raises ValueError where there is no pair.
    """
    read, out, drops, files = 0, 0, Counter(), Counter()
    bar = tqdm(desc=f"prepare {name}", unit="row", unit_scale=True)
    with pq.ParquetWriter(preferences, SCHEMA) as writer, bar:
        for frame, unread in frames:
            bar.update(len(frame))
            try:
                made = pairs(frame)
            except ValueError as error:
                raise ValueError(f"{raw}: {error}") from error
            sound = made.filter(pl.col("drop").is_null()).with_columns(
                source=pl.lit(name),
                prompt=conversation_rules.without_silence(pl.col("prompt")),
                margin=pl.when(pl.col("margin").is_finite()).then("margin"),
            )
            kept = sound.select(SCHEMA.names)
            read += len(frame) + unread.total()
            files += Counter(frame["file"].to_list())
            out += len(kept)
            drops += unread + Counter(made["drop"].drop_nulls().to_list())
            writer.write_table(kept.to_arrow().cast(SCHEMA))
    if not out:
        raise ValueError(f"{raw}: {read:,} rows of {release.name}, no pair; drops {dict(drops)}")
    counts = {"files": files, "rows_read": read, "rows_in": out + drops.total(), "rows_out": out, "drops": drops}
    metrics.write_text(json.dumps(account(release, raw) | counts, indent=2) + "\n", encoding="utf-8")
    print(f"prepare {name}: {read:,} rows of {len(files)} files -> {out:,} pairs, drops {dict(drops)}")


def account(release: releases.Release, raw: Path) -> dict[str, Any]:
    """Where the rows come from, for the audit."""
    pins = [releases.read_pin(file) for file in releases.files(raw) if file.suffix == ".json"]
    told: dict[str, Any] = {}
    for name in ("dataset", "revision", "licence"):
        named = dict.fromkeys(pin[name] for pin in pins or [{"dataset": str(raw)}] if pin.get(name))
        told[name] = " + ".join(named) or None
    return told | {"paper_pairs": release.pairs, "differs": release.differs}
