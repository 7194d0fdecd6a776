"""Score candidates with the reward that a policy carries in itself: beta times its log-ratio to the reference, or its
own log-probability.

Reads   policy: the policy; model: pi_0; candidates: id, prompt, completion, finished
Writes  scores: the candidates' columns, and reward (float64)
Params  implicit.form: ratio (beta * (log pi - log pi_0), nats times beta), sum (log pi), average (log pi over the
        tokens); dpo.beta; dtype
Source  Rafailov et al. 2023, section 5.1; RewardBench, arXiv 2403.13787, section 4.1: with the reference, and without
        it by sum or average
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.signals import forward


def implied(policy: list[float], reference: list[float], tokens: list[int], form: str, beta: float) -> list[float]:
    """The implicit reward of each completion from its log-probabilities, sums over its `tokens`, in nats."""
    if form == "ratio":
        return [beta * (p - r) for p, r in zip(policy, reference, strict=True)]
    return policy if form == "sum" else [p / max(1, n) for p, n in zip(policy, tokens, strict=True)]


def main(params: Any, policy: Path, model: Path, candidates: Path, *, scores: Path) -> None:
    table = pq.read_table(candidates)
    rows = table.to_pylist()
    tokens = forward.tokenized(policy, [(row["prompt"], row["completion"], row["finished"]) for row in rows])
    groups = [row["id"] for row in rows]
    of_policy = forward.logprobs(policy, tokens, params.dtype, params.runtime, "policy", groups) if rows else []
    ratio = rows and params.implicit.form == "ratio"
    of_reference = forward.logprobs(model, tokens, params.dtype, params.runtime, "reference", groups) if ratio else []
    values = implied(
        of_policy, of_reference, [len(completion) for _, completion in tokens], params.implicit.form, params.dpo.beta
    )
    pq.write_table(table.append_column("reward", pa.array(values, pa.float64())), scores)
    print(f"score implicit: {len(rows)} candidates by {params.implicit.form} of {policy}")
