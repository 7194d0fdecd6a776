"""The one loader of params.yaml: YAML 1.2 (5e-7 is a number), every key known, each value of its type and in its range.

Raises ParamsError with one line that names file, key, value, rule and remedy. The sections stand in sections/, a file
per room; what they ask of each other in agreement.py.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.guard import agreement
from stages.guard.sections import data, evaluation, kinds, pairs, runtime, sampling, signals, training


class ParamsError(ValueError):
    """params.yaml breaks a rule; the message is one line for the user."""


class Params(kinds.Section):
    seed: Annotated[int, Field(ge=0)]
    dtype: Literal["float32", "bfloat16"]
    mix: Annotated[dict[str, data.SetInMix], Field(min_length=1)]
    mixed: str
    phrases: data.Phrases
    filter: data.Filter
    split: data.Split
    audit: data.Audit
    prompts: data.Prompts
    demonstrations: data.Demonstrations

    bases: Annotated[dict[str, training.Base], Field(min_length=1)]
    start_from: training.StartFrom
    sft: training.Sft
    reward_model: training.RewardModel
    pretrained: training.Pretrained
    preference_model: training.PreferenceModel
    dpo: training.Dpo

    pairwise: signals.Pairwise
    judge: signals.Judge
    ensemble: signals.Ensemble
    implicit: signals.Implicit
    reward_bench: signals.RewardBench
    reward_bench_2: signals.RewardBench
    annotate: signals.Annotate
    signals: signals.Signals

    iterations: Annotated[list[sampling.Iteration], Field(min_length=1)]
    generate: sampling.Generate
    respond: sampling.Respond
    rank: pairs.Rank
    offline: pairs.Offline
    history: pairs.History

    evaluate: evaluation.Evaluate
    examples: evaluation.Examples
    benchmarks: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], evaluation.Benchmark]
    sandbox: evaluation.Sandbox
    chats: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], evaluation.Chat]
    referee: evaluation.Referee
    stop: evaluation.Stop
    select: evaluation.Select
    runtime: runtime.Runtime

    @model_validator(mode="after")
    def sections_agree(self) -> Self:
        for rule in agreement.RULES:
            rule(self)
        return self


def load(path: Path) -> Params:
    """Read and check a params file. Raises ParamsError."""
    name = os.path.relpath(path)
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(
            f"{name}: {' '.join(str(error).split())}; restore it with: python -m stages.tools.profile quickstart"
        ) from error
    return check(raw, name)


def check(raw: object, path: str) -> Params:
    """Validate a parsed params tree. Raises ParamsError naming the first key that breaks a rule."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(f"{path}: {told(error.errors()[0])} in {path}") from error


def told(fault: Any) -> str:
    """What pydantic found, as `key = value: rule; remedy`."""
    key, rule = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{key} is missing; write it"
    if fault["type"] == "value_error" and not isinstance(fault["input"], str):  # of a section: its rule names the key
        return ".".join([*map(str, fault["loc"]), rule]) + "; change it"
    value = "..." if isinstance(fault["input"], dict | list) else repr(fault["input"])
    remedy = "remove or rename the key" if fault["type"] == "extra_forbidden" else "change it"
    return f"{key} = {value}: {rule}; {remedy}"
