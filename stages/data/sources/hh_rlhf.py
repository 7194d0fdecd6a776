"""HH-RLHF, helpful: two transcripts that differ in the last answer.

Reads   raw: chosen, rejected (transcripts "\\n\\nHuman: ...\\n\\nAssistant: ...")
Writes  preferences, metrics: see stages/data/pair_format.py
Source  Anthropic/hh-rlhf, helpful-base, helpful-online, helpful-rejection-sampled, train, MIT. Rule: RLHFlow's card of
        its converted set (same context, whole alternating rounds, different last turns). That all three folders and
        the train split alone give the paper's 115,396 pairs is our reading of it.
"""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

RELEASE = releases.Release("hh_rlhf", pa.schema([("chosen", pa.string()), ("rejected", pa.string())]), pairs=115_396)


def pairs(raw: pl.DataFrame) -> pl.DataFrame:
    cut = raw.with_columns(c=pair_format.turns(pl.col("chosen")), r=pair_format.turns(pl.col("rejected")))
    c, r = pl.col("c"), pl.col("r")
    drop = pair_format.first_rule(
        control_character=(pl.col("chosen") + pl.col("rejected"))
        .str.contains(pair_format.TURN, literal=True)
        .fill_null(True),
        not_a_transcript=(c.list.len() < 3) | (r.list.len() < 3) | (c.list.first() != "") | (r.list.first() != ""),
        context_differs=c.list.head(c.list.len() - 1) != r.list.head(r.list.len() - 1),
        no_answer=~c.list.last().str.starts_with("A") | ~r.list.last().str.starts_with("A"),
        same_answer=c.list.last().str.slice(1).str.strip_chars() == r.list.last().str.slice(1).str.strip_chars(),
    )
    return cut.select(
        id=pl.format("hh_rlhf-{}", "row"),
        prompt=pair_format.messages(c.list.slice(1, c.list.len() - 2)),
        chosen=pair_format.messages(c.list.tail(1)),
        rejected=pair_format.messages(r.list.tail(1)),
        margin=pl.lit(None, pl.Float64),
        chosen_finished=True,
        rejected_finished=True,
        drop=drop,
    )


def main(params: Any, name: str, raw: Path, *, preferences: Path, metrics: Path) -> None:
    pair_format.prepare(RELEASE, releases.batches(RELEASE, raw), pairs, name, raw, preferences, metrics)
