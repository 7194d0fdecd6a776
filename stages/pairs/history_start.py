"""Begin the history of pairs, before the first iteration has made any: D_off, the raw pairs of the offline baseline.

Reads   offline: D_off with the reference's log-probabilities
Writes  history: the same rows; `history` lets them stay where history.offline says so
Source  RLHF Workflow, arXiv 2405.07863, Algorithm 2, line 1
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def main(params: Any, offline: Path, *, history: Path) -> None:
    table = pq.read_table(offline)
    pq.write_table(table, history)
    print(f"history_start: {table.num_rows} raw pairs")
