"""Read RewardBench, or any file of judged pairs in its form, to measure a preference signal on.

Reads   raw: a folder or file of .jsonl, .jsonl.gz, .parquet, or a hub pin: prompt (text or messages), chosen,
        rejected, and subset (else the file's name); or prompt, response_a, response_b, preference
Writes  pairs: id, subset, source (the subset again), prompt, chosen, rejected, margin (null), chosen_finished,
        rejected_finished; account: rows in, rows out and drops by name, pairs by subset
Source  RewardBench, arXiv 2403.13787: the data set allenai/reward-bench, split `filtered`, and its prior sets
"""

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.data import conversation_rules, ecosystem, pair_format, releases
from stages.evaluation import raw_folder

SCHEMA = pa.schema([("subset", pa.string()), *pair_format.SCHEMA])


def read(raw: Path, file: Path) -> tuple[pl.DataFrame, Counter]:
    """One file's rows as pairs with `subset` and `drop`, and the lines that are no objects.

    Raises ValueError for fields it does not know.
    """
    found = releases.peek(file)
    fields = ecosystem.declared(found, file)
    named = "subset" in found.names
    wanted = pa.schema([*fields, pa.field("subset", pa.string())]) if named else fields
    stem = releases.name(raw, file)
    made, drops = [], Counter()
    for frame, unread in releases.batches(releases.Release(stem, wanted), file):
        subset = frame.select("row", subset=pl.col("subset").fill_null(stem) if named else pl.lit(stem))
        made.append(ecosystem.pairs(frame, fields, stem).with_columns(subset["subset"], source=subset["subset"]))
        drops += unread
    return pl.concat(made), drops


def refused(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the rule that refuses them in `drop`: none judges the answers, all keep a scorer from being asked
    nonsense.
    """
    rules = {
        "tie": pl.col("margin") == 0,
        **conversation_rules.broken("chosen", "rejected"),
        "id_twice": ~pl.col("id").is_first_distinct(),
    }
    return rows.with_columns(drop=pl.coalesce("drop", pair_format.first_rule(**rules)))


def kept(rows: pl.DataFrame) -> pa.Table:
    """The rows that no rule refuses, as they are written."""
    return rows.filter(pl.col("drop").is_null()).select(SCHEMA.names).to_arrow().cast(SCHEMA)


def read_all(raw: Path) -> tuple[pa.Table, Counter]:
    """All pairs of a release, and what was dropped. Raises ValueError where no pair is left."""
    parts = [read(raw, file) for file in releases.files(raw)]
    rows = refused(pl.concat([part for part, _ in parts]))
    drops = sum((unread for _, unread in parts), Counter()) + Counter(rows["drop"].drop_nulls().to_list())
    table = kept(rows)
    if not len(table):
        raise ValueError(f"{raw}: no pair, drops {dict(drops)}; are these judged pairs?")
    return table, drops


def main(params: Any, raw: Path, *, pairs: Path, account: Path) -> None:
    empty = raw_folder.is_empty(raw)
    table, drops = (SCHEMA.empty_table(), Counter()) if empty else read_all(raw)
    pq.write_table(table, pairs)
    subsets = raw_folder.count(table, drops, account)
    told = f"{len(table)} pairs of {len(subsets)} subsets, drops {dict(drops)}"
    print(f"reward_bench: no file in {raw}: its columns stay empty" if empty else f"reward_bench: {told}")
