"""Score candidates with the pairwise preference model: each is compared with others of its prompt, in both orders.

Reads   preference: the preference model; candidates: shards of id, sample, prompt, completion
Writes  scores: the candidates' shards, and reward (float64, null where there is nothing to compare with), compared,
        unreadable (int32), position_bias, first_position (float64): see comparison.Standing
Params  pairwise.ranking; dtype
Source  RLHF Workflow, arXiv 2405.07863, section 2.2
"""

from pathlib import Path
from typing import Any

from stages import rows
from stages.signals import batching, comparison, pairwise


def main(params: Any, preference: Path, candidates: Path, *, scores: Path) -> None:
    asker = comparison.Local(preference, pairwise.question, params.dtype, batching.layout(params.runtime))
    worker = comparison.Ranker(asker, params.pairwise.ranking)
    scored = rows.over_shards(candidates, scores, worker, "preference_model", batching.CHUNK)
    print(f"score preference_model: {len(scored)} candidates, {params.pairwise.ranking}")
