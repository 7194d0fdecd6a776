"""Score candidates with the Bradley-Terry reward model; a prompt's candidates are batched alone, so that no shard
changes another's numbers.

Reads   reward: the reward model; candidates: id, sample, prompt, completion, finished
Writes  scores: the candidates' columns, and reward (float64, a logit)
Params  dtype
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.signals import forward


def main(params: Any, reward: Path, candidates: Path, *, scores: Path) -> None:
    table = pq.read_table(candidates)
    rows = table.to_pylist()
    tokens = forward.tokenized(reward, [(row["prompt"], row["completion"], row["finished"]) for row in rows])
    values = forward.rewards(reward, tokens, params.dtype, params.runtime, [row["id"] for row in rows]) if rows else []
    pq.write_table(table.append_column("reward", pa.array(values, pa.float64())), scores)
    print(
        f"score reward_model: {len(rows)} candidates"
        + (f", mean reward {sum(values) / len(values):.3f}" if values else "")
    )
