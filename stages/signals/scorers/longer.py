"""Score candidates by their length: a floor that any signal should clear, since people and judges favour long answers.

Reads   candidates: shards of completion
Writes  scores: the candidates' shards, and reward (float64, characters)
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import shards


def main(params: Any, candidates: Path, *, scores: Path) -> None:
    scores.mkdir()
    number = 0
    for file in shards.files(candidates):
        table = pq.read_table(file)
        lengths = [float(len(text)) for text in table["completion"].to_pylist()]
        pq.write_table(table.append_column("reward", pa.array(lengths, pa.float64())), scores / file.name)
        number += len(lengths)
    print(f"score longer: {number} candidates")
