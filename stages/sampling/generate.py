"""Sample n completions of every prompt in a shard: n/k at each of k temperatures, from the current policy and, where
wanted, from an earlier one.

Reads   policy: model folder of pi_t; rival: of an earlier checkpoint, read only for generate.from_rival; prompts: a
        shard (id, prompt); `iteration`: t0, t1, ...
Writes  candidates: one row per completion (SCHEMA), prompts in order, samples by index
Params  generate.n, from_rival (the last so many samples of each prompt are the rival's), temperatures, max_new_tokens
        (tokens); dtype, seed
Source  RLHF Workflow, arXiv 2405.07863, section 3.3: n = 8, half at T = 1.0 and half at T = 0.7, no top-k, no top-p; a
        checkpoint trained less as the second of Algorithm 2's two policies
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.sampling import engine

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("sample", pa.int32()),
    ]
    + [("temperature", pa.float64()), ("completion", pa.string()), ("finished", pa.bool_()), ("tokens", pa.int32())]
)


def plan(
    prompts: list[dict], own: int, rivals: int, temperatures: list[float], seed: int, iteration: str
) -> list[dict]:
    """One row per sample, with its temperature and its own seed: first the policy's own, then the rival's, each spread
    evenly over the temperatures.
    """
    spread = [t for number in (own, rivals) for t in temperatures for _ in range(number // len(temperatures))]
    return [
        {**row, "sample": k, "temperature": t, "seed": engine.row_seed(seed, iteration, row["id"], k)}
        for row in prompts
        for k, t in enumerate(spread)
    ]


def main(params: Any, policy: Path, rival: Path, prompts: Path, iteration: str, *, candidates: Path) -> None:
    own, settings = params.generate.n - params.generate.from_rival, params.generate
    rows = plan(
        pq.read_table(prompts).to_pylist(), own, settings.from_rival, settings.temperatures, params.seed, iteration
    )
    said = []
    for model, part in (
        (policy, [row for row in rows if row["sample"] < own]),
        (rival, [row for row in rows if row["sample"] >= own]),
    ):
        if part:
            requests = [engine.Request(row["prompt"], row["temperature"], row["seed"]) for row in part]
            samples, speed = engine.sample(
                model, requests, settings.max_new_tokens, params.dtype, params.seed, params.runtime
            )
            said.append(f"{model} {speed}")
            for row, sample in zip(part, samples, strict=True):
                row |= {"completion": sample.completion, "finished": sample.finished, "tokens": len(sample.token_ids)}
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), candidates)
    print(
        f"generate {iteration}: {len(rows) // settings.n} prompts x {settings.n} -> {len(rows)} completions, {'; '.join(said) or 'the run is stopped'}"
    )
