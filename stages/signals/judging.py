"""The judge that params.yaml describes: a served model, or the one in a folder, and its question.

The scorer `judge` asks it about candidates, the stage `judge` about a policy's answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stages.signals import batching, comparison, endpoint

UNCUT = 1 << 40
"""An endpoint is asked all at once: its journal keeps every answer, and the share that may stay open is of all."""


def renderer(template: Path) -> Callable[[comparison.Question], str]:
    """A function that puts a question into the template's words.

    Raises ValueError for a template that is broken or leaves an answer out.
    """
    probe = [{"role": "user", "content": "<prompt>"}]
    try:
        words = template.read_text(encoding="utf-8")
        made = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(words)
        shown = made.render(prompt=probe, response_a="<first>", response_b="<second>")
    except TemplateError as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{template}: {told}; it may use prompt (role, content), response_a and response_b") from error
    gone = [word for word in ("<prompt>", "<first>", "<second>") if word not in shown]
    if gone:
        raise ValueError(f"{template}: shows no {gone[0]}; it must show prompt, response_a and response_b")
    return lambda question: made.render(prompt=question[1], response_a=question[2], response_b=question[3])


@dataclass(frozen=True)
class Judge:
    """The judge at the endpoint where one is served, else the model in the folder."""

    model: Path
    template: Path
    dtype: str
    layout: batching.Layout
    served: endpoint.Served | None

    @property
    def chunk(self) -> int:
        """Rows that are dealt together."""
        return UNCUT if self.served else batching.CHUNK

    def load(self) -> comparison.Ask:
        render = renderer(self.template)
        if self.served:
            return endpoint.asker(self.served, render)
        asked = lambda question: [{"role": "user", "content": render(question)}]  # noqa: E731
        return comparison.Local(self.model, asked, self.dtype, self.layout).load()


def asker(params: Any, model: Path, template: Path) -> Judge:
    """Describe the judge. Raises ValueError for a broken template, before any model is loaded."""
    renderer(template)
    runtime, served = params.runtime, None
    if params.judge.served:
        judge = params.judge
        asking = judge.top_logprobs, judge.max_tokens, judge.limit_by
        served = endpoint.Served(judge.served, *asking, runtime.judge_url, runtime.judge_connections)
    return Judge(model, template, params.dtype, batching.layout(runtime), served)
