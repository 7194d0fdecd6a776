"""Read RewardBench, or any file of judged pairs in its form, to measure a preference signal on.

Reads   raw: a folder or file of .jsonl, .jsonl.gz, .parquet, or a hub pin: prompt (text or messages), chosen,
        rejected, and subset (else the file's name); or prompt, response_a, response_b, preference
Writes  pairs: id, subset, source (the subset again), prompt, chosen, rejected, margin (null), chosen_finished,
        rejected_finished; account: rows in, rows out and drops by name, pairs by subset
Source  RewardBench, arXiv 2403.13787: the data set allenai/reward-bench, split `filtered`, and its prior sets
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.data import ecosystem, pair_format, releases

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
        **pair_format.broken("chosen", "rejected"),
        "id_twice": ~pl.col("id").is_first_distinct(),
    }
    return rows.with_columns(drop=pl.coalesce("drop", pair_format.first_rule(**rules)))


def main(params: Any, raw: Path, *, pairs: Path, account: Path) -> None:
    empty = raw.is_dir() and not any(f.name.endswith((*releases.ROWS, ".json")) for f in raw.rglob("*"))
    parts = [] if empty else [read(raw, file) for file in releases.files(raw)]
    drops = sum((unread for _, unread in parts), Counter())
    rows = refused(pl.concat([part for part, _ in parts])) if parts else None
    kept = (
        SCHEMA.empty_table()
        if rows is None
        else rows.filter(pl.col("drop").is_null()).select(SCHEMA.names).to_arrow().cast(SCHEMA)
    )
    drops += Counter() if rows is None else Counter(rows["drop"].drop_nulls().to_list())
    if parts and not len(kept):
        raise ValueError(f"{raw}: no pair, drops {dict(drops)}; are these judged pairs?")
    pq.write_table(kept, pairs)
    subsets = Counter(kept["subset"].to_pylist())
    account.write_text(
        json.dumps(
            {"rows_in": len(kept) + drops.total(), "rows_out": len(kept), "drops": drops, "subsets": subsets}, indent=2
        )
        + "\n"
    )
    told = (
        f"{len(kept)} pairs of {len(subsets)} subsets, drops {dict(drops)}"
        if parts
        else f"no file in {raw}: its columns stay empty"
    )
    print(f"reward_bench: {told}")
