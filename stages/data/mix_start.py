"""Write the empty mix, to which `filter` adds one set of preferences after the other.

Writes  mixed: no rows, the columns of a prepared set. account: no sets
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages.data import pair_format


def main(params: Any, *, mixed: Path, account: Path) -> None:
    pq.write_table(pair_format.SCHEMA.empty_table(), mixed)
    account.write_text("{}\n", encoding="utf-8")
    print("mix_start: an empty mix")
