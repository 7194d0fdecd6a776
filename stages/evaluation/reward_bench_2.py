"""Read RewardBench 2: prompts with right and wrong answers, of which a signal must put a right one first.

Reads   raw: a folder or file of .jsonl, .jsonl.gz, .parquet, or a hub pin: id, prompt, chosen and rejected (lists of
        texts), subset
Writes  choices: id, subset, prompt (messages), answers, right: of the answers so many, the first ones, are right;
        account: rows in, rows out and drops by name, prompts by subset
Source  RewardBench 2, arXiv 2506.01937: the data set allenai/reward-bench-2, split `test`
"""

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.data import pair_format, releases
from stages.evaluation import raw_folder
from stages.messages import MESSAGES

FIELDS = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("chosen", pa.list_(pa.string())),
        ("rejected", pa.list_(pa.string())),
        ("subset", pa.string()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("subset", pa.string()),
        ("prompt", MESSAGES),
        ("answers", pa.list_(pa.string())),
        ("right", pa.int32()),
    ]
)


def read_all(raw: Path) -> tuple[pl.DataFrame, Counter]:
    """The lines of all files, and those that are no objects."""
    parts, drops = [], Counter()
    for file in releases.files(raw):
        for frame, unread in releases.batches(releases.Release(releases.name(raw, file), FIELDS), file):
            parts.append(frame)
            drops += unread
    return pl.concat(parts), drops


def refused(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the rule that refuses them in `drop`."""
    answers = pl.concat_list("chosen", "rejected")
    rules = {
        "no_prompt": pl.col("prompt").fill_null("").str.strip_chars() == "",
        "no_right_answer": pl.col("chosen").list.len().fill_null(0) == 0,
        "no_wrong_answer": pl.col("rejected").list.len().fill_null(0) == 0,
        "empty_answer": answers.list.eval(pl.element().fill_null("").str.strip_chars() == "").list.any(),
        "id_twice": ~pl.col("id").is_first_distinct(),
    }
    return rows.with_columns(drop=pair_format.first_rule(**rules))


def laid_out(rows: pl.DataFrame) -> pa.Table:
    """SCHEMA of the rows that no rule refuses."""
    turn = pl.struct(pl.lit("user").alias("role"), pl.col("prompt").alias("content"))
    kept = rows.filter(pl.col("drop").is_null()).select(
        "id",
        pl.col("subset").fill_null(""),
        prompt=pl.concat_list(turn),
        answers=pl.concat_list("chosen", "rejected"),
        right=pl.col("chosen").list.len(),
    )
    return kept.to_arrow().cast(SCHEMA)


def main(params: Any, raw: Path, *, choices: Path, account: Path) -> None:
    empty = raw_folder.is_empty(raw)
    rows, drops = (pl.DataFrame(schema={"drop": pl.String}), Counter()) if empty else read_all(raw)
    if not empty:
        rows = refused(rows)
    table = SCHEMA.empty_table() if empty else laid_out(rows)
    if not empty and not len(table):
        raise ValueError(f"{raw}: no prompt with right and wrong answers is left; is this RewardBench 2?")
    drops += Counter(rows["drop"].drop_nulls().to_list())
    pq.write_table(table, choices)
    subsets = raw_folder.count(table, drops, account)
    told = f"{len(table)} prompts of {len(subsets)} subsets, drops {dict(drops)}"
    print(f"reward_bench_2: no file in {raw}: its column stays empty" if empty else f"reward_bench_2: {told}")
