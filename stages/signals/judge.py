"""Ask the judge whether it prefers a policy's answer or pi_0's to the same prompt: how a policy is watched where no
gold reward is known.

Reads   measures: a policy's measured answers; baseline: the same of pi_0; model: the judge, where it runs here;
        template: its question, in Jinja
Writes  judged: the measures' columns and judge_preference (float64), P(the answer is better than pi_0's of the same
        prompt and sample), the mean of both orders; 0.5 where the two texts are the same, null where no verdict could
        be read
Params  judge.served, judge.top_logprobs; dtype
Source  Zheng et al. 2023, arXiv 2306.05685: both orders, since a judge may favour a place

The scorer of the same name asks the same judge about candidates.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stages.signals import comparison, endpoint


def renderer(template: Path) -> Callable[[comparison.Question], str]:
    """A function that puts a question into the template's words.

    Raises ValueError for a template that is broken or leaves an answer out.
    """
    try:
        made = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(template.read_text())
        probe = made.render(
            prompt=[{"role": "user", "content": "<prompt>"}], response_a="<first>", response_b="<second>"
        )
    except TemplateError as error:
        raise ValueError(
            f"{template}: {' '.join(str(error).split())}; it may use prompt (role, content), response_a and response_b"
        ) from error
    gone = [word for word in ("<prompt>", "<first>", "<second>") if word not in probe]
    if gone:
        raise ValueError(f"{template}: shows no {gone[0]}; it must show prompt, response_a and response_b")
    return lambda question: made.render(prompt=question[1], response_a=question[2], response_b=question[3])


def asker(params: Any, model: Path, template: Path) -> comparison.Ask:
    """The judge at the endpoint where one is served, else the model in the folder."""
    render = renderer(template)
    if params.judge.served:
        return endpoint.asker(params.judge.served, params.judge.top_logprobs, params.runtime, render)
    return comparison.local(model, lambda q: [{"role": "user", "content": render(q)}], params.dtype, params.runtime)


def preferences(rows: list[dict], baseline: list[dict], ask: comparison.Ask) -> list[float | None]:
    """Of each row over its twin in the baseline.

    Raises ValueError for a row without one, or where no verdict could be read.
    """
    theirs = {(row["id"], row["sample"]): row for row in baseline}
    alone = [row["id"] for row in rows if (row["id"], row["sample"]) not in theirs]
    if alone:
        raise ValueError(f"pi_0 has no answer to prompt {alone[0]} to compare with; run respond again for all policies")
    pairs = [(row, theirs[row["id"], row["sample"]]) for row in rows]
    apart = [pair for pair in pairs if pair[0]["completion"] != pair[1]["completion"]]
    verdicts = comparison.both_orders(ask, apart)
    if apart and not any(verdicts):
        raise ValueError(
            f"none of {len(apart)} verdicts could be read; does the judge answer A or B, and do two answers fit its context?"
        )
    told = iter(None if verdict is None else comparison.preferred(verdict) for verdict in verdicts)
    return [next(told) if mine["completion"] != other["completion"] else 0.5 for mine, other in pairs]


def main(params: Any, measures: Path, baseline: Path, model: Path, template: Path, *, judged: Path) -> None:
    table = pq.read_table(measures)
    found = preferences(table.to_pylist(), pq.read_table(baseline).to_pylist(), asker(params, model, template))
    pq.write_table(table.append_column("judge_preference", pa.array(found, pa.float64())), judged)
    read = [each for each in found if each is not None]
    print(
        f"judge: {len(read)} of {len(found)} answers of {measures.stem} compared with pi_0's, preferred with probability {sum(read) / len(read):.3f}"
    )
