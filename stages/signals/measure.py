"""Measure a policy's answers with models: the proxy's reward, and how likely the reference finds them.

Reads   responses: id, sample, split, prompt, completion, finished, token_ids, logp_policy; reward: the reward
        model; model: pi_0
Writes  measures: the responses' columns, proxy_reward (a logit) and logp_reference (log pi_0, sum over tokens, nats)
Params  dtype
"""

from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import rows, shards
from stages.signals import batching, workers

COLUMNS = pa.schema([("proxy_reward", pa.float64()), ("logp_reference", pa.float64())])


def main(params: Any, responses: Path, reward: Path, model: Path, *, measures: Path) -> None:
    table, layout = pq.read_table(responses), batching.layout(params.runtime)
    answers = table.to_pylist()
    proxy = workers.Rewards(reward, params.dtype, layout, alone=False)
    reference = workers.Logprobs(model, params.dtype, layout, alone=False, as_sampled=True)
    (rewarded,) = rows.mapped([answers], proxy, "measure, the proxy", batching.MIXED_CHUNK)
    (referred,) = rows.mapped([answers], reference, "measure, pi_0", batching.MIXED_CHUNK)
    found = [
        {"proxy_reward": one["reward"], "logp_reference": other["logprob"]}
        for one, other in zip(rewarded, referred, strict=True)
    ]
    pq.write_table(shards.widened(table, found, COLUMNS), measures)
    mean = fmean(row["proxy_reward"] for row in found)
    print(f"measure: {len(answers)} answers, mean proxy reward {mean:.3f}")
