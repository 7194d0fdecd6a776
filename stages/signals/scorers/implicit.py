"""Score candidates with the reward that a policy carries in itself: beta times its log-ratio to the reference, or its
own log-probability.

Reads   policy: the policy; model: pi_0; candidates: shards of id, sample, prompt, completion, finished
Writes  scores: the candidates' shards, and reward (float64)
Params  implicit.form: ratio (beta * (log pi - log pi_0), nats times beta), sum (log pi), average (log pi over the
        tokens); dpo.beta; dtype
Source  Rafailov et al. 2023, section 5.1; RewardBench, arXiv 2403.13787, section 4.1: with the reference, and without
        it by sum or average
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import rows, shards
from stages.signals import batching, workers

COLUMNS = pa.schema([("reward", pa.float64())])


def implied(policy: float, reference: float, tokens: int, form: str, beta: float) -> float:
    """The implicit reward of a completion from its log-probabilities, sums over its `tokens`, in nats."""
    if form == "ratio":
        return beta * (policy - reference)
    return policy if form == "sum" else policy / max(1, tokens)


def logprobs(model: Path, parts: list[list[dict]], params: Any, what: str) -> list[list[dict]]:
    """Each part's rows with log pi of the completions."""
    worker = workers.Logprobs(model, params.dtype, batching.layout(params.runtime))
    return rows.mapped(parts, worker, what, batching.CHUNK)


def main(params: Any, policy: Path, model: Path, candidates: Path, *, scores: Path) -> None:
    files, form = shards.files(candidates), params.implicit.form
    tables = [pq.read_table(file) for file in files]
    asked = [table.to_pylist() for table in tables]
    own = logprobs(policy, asked, params, "implicit, the policy")
    reference = logprobs(model, asked, params, "implicit, pi_0") if form == "ratio" else own
    scores.mkdir()
    for file, table, mine, theirs in zip(files, tables, own, reference, strict=True):
        rewards = [
            implied(m["logprob"], t["logprob"], m["scored_tokens"], form, params.dpo.beta)
            for m, t in zip(mine, theirs, strict=True)
        ]
        made = shards.widened(table, [{"reward": reward} for reward in rewards], COLUMNS)
        pq.write_table(made, scores / file.name)
    print(f"score implicit: {sum(map(len, asked))} candidates by {form} of {policy}")
