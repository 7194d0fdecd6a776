"""The one loader of params.yaml: YAML 1.2 (5e-7 is a number), every key known, each value of its type and in its range.

Raises ParamsError with one line that names file, key, value, rule and remedy. The sections stand in sections.py, what
they ask of each other in agreement.py.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.guard import agreement, sections


class ParamsError(ValueError):
    """params.yaml breaks a rule; the message is one line for the user."""


class Params(sections.Section):
    seed: Annotated[int, Field(ge=0)]
    dtype: Literal["float32", "bfloat16"]
    base: sections.Base
    mix: Annotated[dict[str, sections.SetInMix], Field(min_length=1)]
    mixed: str
    benchmarks: sections.Benchmarks
    filter: sections.Filter
    split: sections.Split
    audit: sections.Audit
    prompts: sections.Prompts
    demonstrations: sections.Demonstrations
    sft: sections.Sft
    reward_model: sections.RewardModel
    preference_model: sections.PreferenceModel
    pairwise: sections.Pairwise
    judge: sections.Judge
    ensemble: sections.Ensemble
    implicit: sections.Implicit
    reward_bench: sections.RewardBench
    iterations: Annotated[list[sections.Iteration], Field(min_length=1)]
    signals: sections.Signals
    generate: sections.Generate
    rank: sections.Rank
    offline: sections.Offline
    history: sections.History
    annotate: sections.Annotate
    dpo: sections.Dpo
    respond: sections.Respond
    evaluate: sections.Evaluate
    stop: sections.Stop
    select: sections.Select
    runtime: sections.Runtime

    @model_validator(mode="after")
    def sections_agree(self) -> Self:
        for rule in agreement.RULES:
            rule(self)
        return self


def load(path: Path) -> Params:
    """Read and check a params file. Raises ParamsError."""
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(
            f"{path}: {' '.join(str(error).split())}; restore it with: python -m stages.tools.profile quickstart"
        ) from error
    return check(raw, str(path))


def check(raw: object, path: str) -> Params:
    """Validate a parsed params tree. Raises ParamsError naming the first key that breaks a rule."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "params"
        rule = first["msg"].removeprefix("Value error, ")
        value = first["input"] if isinstance(first["input"], str | int | float | bool | None) else "..."
        remedy = "remove or rename the key" if first["type"] == "extra_forbidden" else "change it"
        raise ParamsError(f"{path}: {key} = {value!r}: {rule}; {remedy} in {path}") from error
