"""Score candidates with the pairwise preference model: each is compared with others of its prompt, in both orders.

Reads   preference: the preference model; candidates: id, sample, prompt, completion
Writes  scores: the candidates' columns, and reward (float64, null where there is nothing to compare with), compared,
        unreadable (int32), position_bias, first_position (float64): see comparison.Standing
Params  pairwise.ranking; dtype
Source  RLHF Workflow, arXiv 2405.07863, section 2.2
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages.signals import comparison, pairwise


def main(params: Any, preference: Path, candidates: Path, *, scores: Path) -> None:
    ask = comparison.local(preference, lambda q: pairwise.instruction(*q[1:]), params.dtype, params.runtime)
    table = comparison.scored(pq.read_table(candidates), ask, params.pairwise.ranking)
    pq.write_table(table, scores)
    print(f"score preference_model: {len(table)} candidates, {params.pairwise.ranking}")
