"""Let a policy answer every validation and test prompt, several times.

Reads   policy: a model folder; validation, test: id, prompt
Writes  responses: id, sample, split, prompt, completion, finished, token_ids, logp_policy (log pi at temperature 1,
        sum over the tokens, nats)
Params  respond.temperature, respond.answers to each prompt, generate.max_new_tokens (tokens); dtype, seed

The seeds do not depend on the policy: two policies that are the same give the same answers.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.sampling import engine

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("split", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    ]
    + [
        ("completion", pa.string()),
        ("finished", pa.bool_()),
        ("token_ids", pa.list_(pa.int32())),
        ("logp_policy", pa.float64()),
    ]
)


def main(params: Any, policy: Path, validation: Path, test: Path, *, responses: Path) -> None:
    prompts = [
        {**row, "split": split}
        for split, path in (("validation", validation), ("test", test))
        for row in pq.read_table(path).to_pylist()
    ]
    rows = [{**row, "sample": k} for row in prompts for k in range(params.respond.answers)]
    seeds = [engine.row_seed(params.seed, "respond", row["id"], row["sample"]) for row in rows]
    requests = [
        engine.Request(row["prompt"], params.respond.temperature, seed) for row, seed in zip(rows, seeds, strict=True)
    ]
    samples, speed = engine.sample(
        policy, requests, params.generate.max_new_tokens, params.dtype, params.seed, params.runtime, with_logprob=True
    )
    answers = [
        {**row, "completion": s.completion, "finished": s.finished, "token_ids": s.token_ids, "logp_policy": s.logprob}
        for row, s in zip(rows, samples, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(answers, SCHEMA), responses)
    print(f"respond: {len(answers)} answers of {policy} to {len(prompts)} prompts, {speed}")
