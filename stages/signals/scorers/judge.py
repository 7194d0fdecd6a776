"""Score candidates by asking a language model which of two answers is better, in both orders: LLM as judge.

Reads   model: the judge, where it runs here; template: the question, in Jinja, of prompt (messages), response_a,
        response_b; candidates: id, sample, prompt, completion
Writes  scores: the candidates' columns, and reward (float64, null where no verdict could be read), compared,
        unreadable (int32), position_bias, first_position (float64): see comparison.Standing
Params  judge.served: the model's name at the endpoint runtime.judge_url, null for the model in this folder;
        judge.top_logprobs; pairwise.ranking; dtype
Source  the "Prompting" row of RLHF Workflow's Table 1; Zheng et al. 2023, arXiv 2306.05685, on position bias
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages.signals import comparison, judge


def main(params: Any, model: Path, template: Path, candidates: Path, *, scores: Path) -> None:
    table = comparison.scored(pq.read_table(candidates), judge.asker(params, model, template), params.pairwise.ranking)
    pq.write_table(table, scores)
    asked, lost = (sum(table[name].to_pylist()) for name in ("compared", "unreadable"))
    print(
        f"score judge: {len(table)} candidates by {params.judge.served or model}, {asked} verdicts, {lost} unreadable"
    )
