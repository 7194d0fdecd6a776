"""Begin the labels that `refreshed` reward models train on with those that there are: the filtered training pairs.

Reads   train: preference pairs
Writes  annotated: the same pairs, to which each iteration adds (`annotate`)
"""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def main(params: Any, train: Path, *, annotated: Path) -> None:
    shutil.copyfile(train, annotated)
    print(f"annotate_start: {pq.read_metadata(train).num_rows} pairs")
