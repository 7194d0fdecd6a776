"""Measure a policy's answers with models: the proxy's reward, and how likely the reference finds them.

Reads   responses: id, split, prompt, completion, finished, token_ids, logp_policy; reward: the reward model; model:
        pi_0
Writes  measures: the responses' columns, proxy_reward (a logit) and logp_reference (log pi_0, sum over tokens, nats)
Params  dtype
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.signals import forward


def main(params: Any, responses: Path, reward: Path, model: Path, *, measures: Path) -> None:
    table = pq.read_table(responses)
    answers = table.to_pylist()
    rows = forward.tokenized(reward, [(row["prompt"], row["completion"], row["finished"]) for row in answers])
    proxy = forward.rewards(reward, rows, params.dtype, params.runtime)
    sampled = [
        (prompt, row["token_ids"]) for (prompt, _), row in zip(rows, answers, strict=True)
    ]  # the very tokens that log pi is of
    reference = forward.logprobs(model, sampled, params.dtype, params.runtime, "reference")
    table = table.append_column("proxy_reward", pa.array(proxy, pa.float64()))
    pq.write_table(table.append_column("logp_reference", pa.array(reference, pa.float64())), measures)
    print(f"measure: {len(rows)} answers, mean proxy reward {sum(proxy) / len(proxy):.3f}")
