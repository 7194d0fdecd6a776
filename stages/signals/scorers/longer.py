"""Score candidates by their length: a floor that any signal should clear, since people and judges favour long answers.

Reads   candidates: completion
Writes  scores: the candidates' columns, and reward (float64, characters)
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def main(params: Any, candidates: Path, *, scores: Path) -> None:
    table = pq.read_table(candidates)
    lengths = [float(len(text)) for text in table["completion"].to_pylist()]
    pq.write_table(table.append_column("reward", pa.array(lengths, pa.float64())), scores)
    print(f"score longer: {len(lengths)} candidates")
