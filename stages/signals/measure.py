"""Measure a policy's answers with models: the proxy's reward, and how likely the policy and the reference find them.

Reads   responses: id, sample, split, prompt, completion, finished, token_ids, logp_sampler; reward: the reward model;
        policy: the model that answered; model: pi_0
Writes  measures: the responses' columns, proxy_reward (a logit), logp_policy and logp_reference (log pi and log pi_0 at
        temperature 1, sums over the tokens, nats)
Params  dtype

Both log-probabilities are one engine's, of the weights as they are saved, so that the KL of pi_0 to itself is exactly
0. How far the sampler's own are from the policy's is a number of its own, which `evaluate` tells.
"""

from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import rows, shards
from stages.signals import batching, workers

COLUMNS = pa.schema([("proxy_reward", pa.float64()), ("logp_policy", pa.float64()), ("logp_reference", pa.float64())])


def main(params: Any, responses: Path, reward: Path, policy: Path, model: Path, *, measures: Path) -> None:
    table, layout = pq.read_table(responses), batching.layout(params.runtime)
    answers = table.to_pylist()
    proxy = workers.Rewards(reward, params.dtype, layout, alone=False)
    (rewarded,) = rows.mapped([answers], proxy, "measure, the proxy", batching.MIXED_CHUNK)
    logs = {}
    for folder in dict.fromkeys((policy, model)):
        worker = workers.Logprobs(folder, params.dtype, layout, alone=False, as_sampled=True)
        (logs[folder],) = rows.mapped([answers], worker, f"measure, {folder.name}", batching.MIXED_CHUNK)
    found = [
        {"proxy_reward": proxied["reward"], "logp_policy": own["logprob"], "logp_reference": reference["logprob"]}
        for proxied, own, reference in zip(rewarded, logs[policy], logs[model], strict=True)
    ]
    pq.write_table(shards.widened(table, found, COLUMNS), measures)
    mean = fmean(row["proxy_reward"] for row in found)
    kl = fmean(row["logp_policy"] - row["logp_reference"] for row in found)
    print(f"measure: {len(answers)} answers of {policy.name}, mean proxy reward {mean:.3f}, KL to pi_0 {kl:.3f}")
