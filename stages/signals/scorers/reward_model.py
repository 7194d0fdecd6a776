"""Score candidates with the Bradley-Terry reward model; a prompt's candidates are batched alone, so that no shard
changes another's numbers.

Reads   reward: the reward model; candidates: shards of id, sample, prompt, completion, finished
Writes  scores: the candidates' shards, and reward (float64, a logit)
Params  dtype
"""

from pathlib import Path
from statistics import fmean
from typing import Any

from stages import rows
from stages.signals import batching, workers


def main(params: Any, reward: Path, candidates: Path, *, scores: Path) -> None:
    worker = workers.Rewards(reward, params.dtype, batching.layout(params.runtime))
    scored = rows.over_shards(candidates, scores, worker, "reward_model", batching.CHUNK)
    mean = f", mean reward {fmean(row['reward'] for row in scored):.3f}" if scored else ""
    print(f"score reward_model: {len(scored)} candidates{mean}")
