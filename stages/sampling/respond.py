"""Let a policy answer every validation and test prompt, several times.

Reads   policy: a model folder; validation, test: id, prompt
Writes  responses: id, sample, split, prompt, completion, finished, token_ids, logp_sampler (log pi at temperature 1 as
        the sampler has it, sum over the tokens, nats)
Params  respond.temperature, respond.answers to each prompt, generate.max_new_tokens (tokens), generate.thinking (strip:
        completion is what is said behind it; token_ids and logp_sampler are of both); dtype, seed

The seeds do not depend on the policy: two policies that are the same give the same answers.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import rows
from stages.messages import MESSAGES
from stages.sampling import engine

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("split", pa.string()),
        ("prompt", MESSAGES),
        ("completion", pa.string()),
        ("finished", pa.bool_()),
        ("token_ids", pa.list_(pa.int32())),
        ("logp_sampler", pa.float64()),
    ]
)

CHUNK = 512
"""Answers sampled together. What is in flight beside an answer moves the last bits of its log pi: a constant."""


def plan(prompts: list[dict], answers: int, temperature: float, seed: int) -> list[dict]:
    """One row per answer, with its own seed."""
    return [
        {**row, "sample": k, "temperature": temperature, "seed": engine.row_seed(seed, "respond", row["id"], k)}
        for row in prompts
        for k in range(answers)
    ]


def main(params: Any, policy: Path, validation: Path, test: Path, *, responses: Path) -> None:
    splits = {"validation": validation, "test": test}
    prompts = [row | {"split": name} for name, path in splits.items() for row in pq.read_table(path).to_pylist()]
    planned = plan(prompts, params.respond.answers, params.respond.temperature, params.seed)
    asked = [row["prompt"] for row in prompts]
    worker = engine.sampler(policy, asked, params, with_logprob=True)
    (made,) = rows.mapped([planned], worker, "respond", CHUNK)
    answers = [row | {"logp_sampler": row["logprob"]} for row in made]
    pq.write_table(pa.Table.from_pylist(answers, SCHEMA), responses)
    tokens = sum(len(row["token_ids"]) for row in answers)
    print(f"respond: {len(answers)} answers of {policy} to {len(prompts)} prompts, {tokens:,} tokens")
