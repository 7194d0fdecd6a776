"""Sample n completions of every prompt of an iteration: n/k at each of k temperatures, from the current policy and,
where wanted, from an earlier one.

Reads   policy: model folder of pi_t; rival: of an earlier checkpoint, read only for generate.from_rival; prompts: id,
        prompt; `iteration`: the sampled policy's name, pi0, pi1, ...
Writes  candidates: shards of one row per completion (SCHEMA), prompts in order, samples by index; one empty shard once
        the run is stopped
Params  generate.n, from_rival (the last so many samples of each prompt are the rival's), temperatures, max_new_tokens
        (tokens), thinking (strip: `completion` is what is said behind it; `tokens` counts both), rows_per_shard
        (completions, of whole prompts; so many are also sampled together, and kept, so that a kill costs that work at
        most; let it be several times runtime.engine_sequences); dtype, seed
Source  RLHF Workflow, arXiv 2405.07863, section 3.3: n = 8, half at T = 1.0 and half at T = 0.7, no top-k, no top-p; a
        checkpoint trained less as the second of Algorithm 2's two policies
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import rows, shards
from stages.messages import MESSAGES
from stages.sampling import engine

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", MESSAGES),
        ("sample", pa.int32()),
        ("temperature", pa.float64()),
        ("completion", pa.string()),
        ("finished", pa.bool_()),
        ("tokens", pa.int32()),
    ]
)


def plan(
    prompts: list[dict], own: int, rivals: int, temperatures: list[float], seed: int, iteration: str
) -> list[dict]:
    """One row per sample, with its temperature and its own seed: first the policy's own, then the rival's, each spread
    evenly over the temperatures.

    Seeds are by the iteration's number, t0 of pi0.
    """
    number = iteration.replace("pi", "t")
    spread = [t for several in (own, rivals) for t in temperatures for _ in range(several // len(temperatures))]
    return [
        {**row, "sample": k, "temperature": t, "seed": engine.row_seed(seed, number, row["id"], k)}
        for row in prompts
        for k, t in enumerate(spread)
    ]


def sampled(params: Any, model: Path, planned: list[dict], what: str) -> list[dict]:
    """The planned rows with what the model makes of them."""
    if not planned:
        return []
    prompts = [row["prompt"] for row in planned]
    worker = engine.sampler(model, prompts, params, with_logprob=False)
    (made,) = rows.mapped([planned], worker, what, params.generate.rows_per_shard)
    return [row | {"tokens": len(row["token_ids"])} for row in made]


def main(params: Any, policy: Path, rival: Path, prompts: Path, iteration: str, *, candidates: Path) -> None:
    asked, rivals = pq.read_table(prompts).to_pylist(), params.generate.from_rival
    own = params.generate.n - rivals
    planned = plan(asked, own, rivals, params.generate.temperatures, params.seed, iteration)
    made = sampled(params, policy, [row for row in planned if row["sample"] < own], "generate")
    made += sampled(params, rival, [row for row in planned if row["sample"] >= own], "generate of the rival")
    places = {row["id"]: place for place, row in enumerate(asked)}
    made.sort(key=lambda row: (places[row["id"]], row["sample"]))
    number = shards.write(candidates, made, SCHEMA, params.generate.rows_per_shard)
    tokens = sum(row["tokens"] for row in made)
    told = f"{len(made)} completions, {tokens:,} tokens, shards: {number}" if made else "none, the run is stopped"
    print(f"generate {iteration}: {len(asked)} prompts x {params.generate.n} -> {told}")
