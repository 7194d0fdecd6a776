"""Score candidates by asking a language model which of two answers is better, in both orders: LLM as judge.

Reads   model: the judge, where it runs here; template: the question, in Jinja, of prompt (messages), response_a,
        response_b; candidates: shards of id, sample, prompt, completion
Writes  scores: the candidates' shards, and reward (float64, null where no verdict could be read), compared,
        unreadable (int32), position_bias, first_position (float64): see comparison.Standing
Params  judge.served: the model's name at the endpoint runtime.judge_url, null for the model in this folder;
        judge.top_logprobs, judge.max_tokens, judge.limit_by; pairwise.ranking; dtype
Source  the "Prompting" row of RLHF Workflow's Table 1; Zheng et al. 2023, arXiv 2306.05685, on position bias
"""

from pathlib import Path
from typing import Any

from stages import rows
from stages.signals import comparison, judging


def main(params: Any, model: Path, template: Path, candidates: Path, *, scores: Path) -> None:
    asker = judging.asker(params, model, template)
    worker = comparison.Ranker(asker, params.pairwise.ranking)
    scored = rows.over_shards(candidates, scores, worker, "judge", asker.chunk)
    asked, lost = (sum(row[name] for row in scored) for name in ("compared", "unreadable"))
    by = params.judge.served or model
    print(f"score judge: {len(scored)} candidates by {by}, {asked} verdicts, {lost} unreadable")
