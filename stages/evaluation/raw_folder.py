"""Folders that stand ready for what people bring: RewardBench and RewardBench 2."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa

from stages.data import releases


def is_empty(raw: Path) -> bool:
    """Whether this is a folder without any file of rows: nobody put anything there."""
    return raw.is_dir() and not any(file.name.endswith((*releases.ROWS, ".json")) for file in raw.rglob("*"))


def count(table: pa.Table, drops: Counter, account: Path) -> Counter:
    """Write the account of the rows that were read; rows by subset."""
    subsets = Counter(table["subset"].to_pylist())
    counts = {"rows_in": len(table) + drops.total(), "rows_out": len(table), "drops": drops, "subsets": subsets}
    account.write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    return subsets
