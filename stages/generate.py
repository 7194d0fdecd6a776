"""Sample n completions of every prompt in a shard from the current policy: n/k at each of k temperatures.

Reads   policy: model folder of pi_t; prompts: a shard (id, prompt); `iteration`: t0, t1, ...
Writes  candidates: one row per completion (SCHEMA), prompts in order, samples by index
Params  generate.n, temperatures, max_new_tokens (tokens); dtype, seed
Source  RLHF Workflow, arXiv 2405.07863, section 3.3: n = 8, half at T = 1.0 and half at T = 0.7, no top-k, no top-p
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import sampling

SCHEMA = pa.schema(
    [("id", pa.string()), ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))), ("sample", pa.int32())]
    + [("temperature", pa.float64()), ("completion", pa.string()), ("finished", pa.bool_()), ("tokens", pa.int32())]
)


def plan(prompts: list[dict], n: int, temperatures: list[float], seed: int, iteration: str) -> list[dict]:
    """One row per sample, with its temperature and its own seed."""
    share = n // len(temperatures)
    return [
        {**row, "sample": k, "temperature": temperatures[k // share], "seed": sampling.row_seed(seed, iteration, row["id"], k)}
        for row in prompts
        for k in range(n)
    ]


def main(params: Any, policy: Path, prompts: Path, iteration: str, *, candidates: Path) -> None:
    rows = plan(pq.read_table(prompts).to_pylist(), params.generate.n, params.generate.temperatures, params.seed, iteration)
    requests = [sampling.Request(row["prompt"], row["temperature"], row["seed"]) for row in rows]
    samples, speed = sampling.sample(policy, requests, params.generate.max_new_tokens, params.dtype, params.seed, params.runtime) if rows else ([], "")
    drawn = [{**row, "completion": s.completion, "finished": s.finished, "tokens": len(s.token_ids)} for row, s in zip(rows, samples, strict=True)]
    pq.write_table(pa.Table.from_pylist(drawn, SCHEMA), candidates)
    print(f"generate {iteration}: {len(rows) // params.generate.n} prompts x {params.generate.n} -> {len(drawn)} completions, {speed}")
