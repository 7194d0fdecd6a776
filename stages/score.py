"""Give every candidate its reward, the same one however the prompts were dealt to shards: a prompt's candidates are batched alone.

Reads   reward: the reward model; candidates: id, sample, prompt, completion, finished
Writes  scores: the candidates' columns, and reward (float64, a logit)
Params  dtype
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import forward


def main(params: Any, reward: Path, candidates: Path, *, scores: Path) -> None:
    table = pq.read_table(candidates)
    prompts = table["id"].to_pylist()
    rows = forward.tokenized(reward, [(row["prompt"], row["completion"], row["finished"]) for row in table.to_pylist()])
    values = forward.rewards(reward, rows, params.dtype, params.runtime, prompts) if rows else []
    pq.write_table(table.append_column("reward", pa.array(values, pa.float64())), scores)
    print(f"score: {len(rows)} candidates" + (f", mean reward {sum(values) / len(values):.3f}" if values else ""))
