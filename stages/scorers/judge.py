"""Score candidates by asking a language model which of two answers is better, in both orders: LLM as judge.

Reads   model: the judge, where it runs here; template: the question, in Jinja, of prompt (messages), response_a, response_b;
        candidates: id, sample, prompt, completion
Writes  scores: the candidates' columns, and reward (float64, null where no verdict could be read), compared, unreadable (int32),
        position_bias, first_position (float64): see comparison.Standing
Params  judge.served: the model's name at the endpoint runtime.judge_url, null for the model in this folder; judge.top_logprobs; pairwise.ranking; dtype
Source  the "Prompting" row of RLHF Workflow's Table 1; Zheng et al. 2023, arXiv 2306.05685, on position bias
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stages import comparison, endpoint


def renderer(template: Path) -> Callable[[comparison.Question], str]:
    """A function that puts a question into the template's words. Raises ValueError for a template that is broken or leaves an answer out."""
    try:
        made = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(template.read_text())
        probe = made.render(prompt=[{"role": "user", "content": "<prompt>"}], response_a="<first>", response_b="<second>")
    except TemplateError as error:
        raise ValueError(f"{template}: {' '.join(str(error).split())}; it may use prompt (role, content), response_a and response_b") from error
    gone = [word for word in ("<prompt>", "<first>", "<second>") if word not in probe]
    if gone:
        raise ValueError(f"{template}: shows no {gone[0]}; it must show prompt, response_a and response_b")
    return lambda question: made.render(prompt=question[1], response_a=question[2], response_b=question[3])


def main(params: Any, model: Path, template: Path, candidates: Path, *, scores: Path) -> None:
    render = renderer(template)
    if params.judge.served:
        ask = endpoint.asker(params.judge.served, params.judge.top_logprobs, params.runtime, render)
    else:
        ask = comparison.local(model, lambda q: [{"role": "user", "content": render(q)}], params.dtype, params.runtime)
    table = comparison.scored(pq.read_table(candidates), ask, params.pairwise.ranking)
    pq.write_table(table, scores)
    asked, lost = (sum(table[name].to_pylist()) for name in ("compared", "unreadable"))
    print(f"score judge: {len(table)} candidates by {params.judge.served or model}, {asked} verdicts, {lost} unreadable")
