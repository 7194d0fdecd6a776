"""The one loader of params.yaml: YAML 1.2 (5e-7 is a number), every key known, every value of its type and in its range.

Raises ParamsError with one line that names file, key, value, rule and remedy. Sections carry the name of the stage that reads them;
`runtime` says how the work is laid out on this machine, is tracked by no stage and can change no result's meaning.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class ParamsError(ValueError):
    """params.yaml breaks a rule; the message is one line for the user."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Base(Section):
    model: str
    revision: str | None


SOURCES = Literal[
    "argilla_math", "capybara", "code_ultrafeedback", "helpsteer", "hh_rlhf", "nectar", "open_orca", "own", "pku_saferlhf", "quickstart", "shp",
    "summarize", "ultrafeedback", "ultrainteract",
]  # fmt: skip


class NoRule(Section):
    pass


class ShpRule(Section):
    min_ratio: Positive
    pairs_per_post: Count


class HelpsteerRule(Section):
    aspects: Annotated[list[Literal["helpfulness", "correctness", "coherence", "complexity", "verbosity"]], Field(min_length=1)]


class OpenOrcaRule(Section):
    min_chosen_score: NotNegative


class NectarRule(Section):
    rejected: Literal["worst", "random"]


RULES: dict[str, type[Section]] = {"shp": ShpRule, "helpsteer": HelpsteerRule, "open_orca": OpenOrcaRule, "nectar": NectarRule}


class SetFilter(Section):
    min_margin: NotNegative
    rows: NotNegative

    @model_validator(mode="after")
    def rows_are_a_share_or_a_number(self) -> Self:
        if self.rows > 1 and self.rows % 1:
            raise ValueError(f"rows = {self.rows} must be 0 for all, a share under 1, or a whole number")
        return self


class SetOfPairs(Section):
    after: str
    source: SOURCES
    raw: str
    rule: dict
    filter: SetFilter

    @model_validator(mode="after")
    def rule_is_the_sources(self) -> Self:
        try:
            RULES.get(self.source, NoRule).model_validate(self.rule)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"rule.{'.'.join(map(str, first['loc']))}: {first['msg']}, for source {self.source}") from error
        return self


class Benchmarks(Section):
    raw: str
    words: Annotated[int, Field(ge=4)]


class Filter(Section):
    max_tokens: Count
    near_duplicates: Share


class Split(Section):
    heldout_share: Annotated[float, Field(gt=0, lt=1)]


class Audit(Section):
    rows: Count


class Demonstrations(Section):
    raw: str


class Prompts(Section):
    raw: str
    per_iteration: Count
    validation: Count
    test: Count


class Training(Section):
    learning_rate: Positive
    epochs: Count
    global_batch_rows: Count
    warmup_share: Share
    max_tokens: Count


class Sft(Training):
    rows: Count | None


class RewardModel(Training):
    layers: Count | None
    margin: NotNegative
    centring: NotNegative
    validation_share: Annotated[float, Field(ge=0, lt=1)]
    evaluations: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def there_is_something_to_validate_on(self) -> Self:
        if self.evaluations and not self.validation_share:
            raise ValueError(f"evaluations = {self.evaluations} need a validation_share over 0")
        return self


class PreferenceModel(Training):
    layers: Count | None
    packing: bool


class Pairwise(Section):
    ranking: Literal["tournament", "all_pairs"]


class Judge(Section):
    model: str
    template: str
    served: str | None
    top_logprobs: Annotated[int, Field(ge=0, le=20)]


class Ensemble(Section):
    rule: Literal["mean", "worst", "penalised"]
    penalty: NotNegative


class Implicit(Section):
    policy: str
    form: Literal["ratio", "sum", "average"]


class RewardBench(Section):
    raw: str


class Generate(Section):
    n: Annotated[int, Field(ge=2)]
    temperatures: Annotated[list[NotNegative], Field(min_length=1)]
    max_new_tokens: Count

    @model_validator(mode="after")
    def n_is_shared_evenly(self) -> Self:
        if self.n % len(self.temperatures):
            raise ValueError(f"n = {self.n} must be a multiple of the {len(self.temperatures)} temperatures")
        return self


class Rank(Section):
    scorer: Literal["reward_model", "preference_model", "judge", "ensemble", "implicit", "bag_of_words", "longer"]
    pairing: Literal["best_worst", "best_second", "best_random", "all_pairs", "top_bottom"]
    top_k: Count
    length_penalty: NotNegative
    min_margin: NotNegative
    truncated: Literal["keep", "drop", "rejected_only"]


class Offline(Section):
    pairs: Count | None


class History(Section):
    keep: Literal["newest", "all"]
    offline: bool


class Dpo(Training):
    beta: Positive
    loss: Literal["sigmoid", "hinge", "robust", "exo_pair"]
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]

    @model_validator(mode="after")
    def smoothing_is_used(self) -> Self:
        if self.label_smoothing and self.loss not in ("robust", "exo_pair"):
            raise ValueError(f"label_smoothing = {self.label_smoothing} is ignored by TRL's loss '{self.loss}'; use robust or set it to 0")
        return self


class Respond(Section):
    temperature: NotNegative
    answers: Count


class Evaluate(Section):
    gold: Literal["quickstart", "none"]
    resamples: Count
    confidence: Annotated[float, Field(gt=0, lt=1)]


class Select(Section):
    by: Literal["proxy_reward"]


class Iteration(Section):
    id: str
    samples: str
    makes: str


class Runtime(Section):
    processes: Count
    deepspeed: Annotated[int, Field(ge=0, le=3)]
    threads: Count | None
    micro_batch_rows: Count
    forward_batch_tokens: Count
    gradient_checkpointing: bool
    engine_sequences: Count
    engine_memory_share: Annotated[float, Field(gt=0, le=1)]
    engine_cpu_cache_gib: Count
    tensor_parallel: Count
    judge_url: str
    judge_connections: Count


class Params(Section):
    seed: Annotated[int, Field(ge=0)]
    dtype: Literal["float32", "bfloat16"]
    base: Base
    mix: Annotated[dict[str, SetOfPairs], Field(min_length=1)]
    mixed: str
    benchmarks: Benchmarks
    filter: Filter
    split: Split
    audit: Audit
    prompts: Prompts
    demonstrations: Demonstrations
    sft: Sft
    reward_model: RewardModel
    preference_model: PreferenceModel
    pairwise: Pairwise
    judge: Judge
    ensemble: Ensemble
    implicit: Implicit
    reward_bench: RewardBench
    iterations: Annotated[list[Iteration], Field(min_length=1)]
    final: str
    policies: list[str]
    candidates: list[str]
    generate: Generate
    rank: Rank
    offline: Offline
    history: History
    dpo: Dpo
    respond: Respond
    evaluate: Evaluate
    select: Select
    runtime: Runtime

    @model_validator(mode="after")
    def sets_form_a_chain(self) -> Self:
        before = "start"
        for name, entry in self.mix.items():
            if entry.after != before:
                raise ValueError(f"mix.{name}.after = {entry.after!r} must be {before!r}: each set is mixed after the one above it")
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "start":
                raise ValueError(f"mix: a set is named by lower-case letters, digits and _, and not start; {name!r} is not")
            before = name
        if self.mixed != before:
            raise ValueError(f"mixed = {self.mixed!r} must be {before!r}, the last set of the mix")
        return self

    def shards(self) -> list[str]:
        """The shards' numbers, as the first policy's candidates name them."""
        return [name.removeprefix("pi0-") for name in self.candidates if re.fullmatch(r"pi0-\d+", name)]

    @model_validator(mode="after")
    def iterations_form_a_chain(self) -> Self:
        for k, step in enumerate(self.iterations):
            wanted = (f"t{k}", f"pi{k}", f"pi{k + 1}")
            if (step.id, step.samples, step.makes) != wanted:
                raise ValueError(f"iterations[{k}] must be {{id: {wanted[0]}, samples: {wanted[1]}, makes: {wanted[2]}}}")
        sampled = ["heldout", "reward_bench", *(f"{step.samples}-{shard}" for step in self.iterations for shard in self.shards())]
        if self.candidates != sampled:
            raise ValueError(f"candidates must be [{', '.join(sampled)}]: the pairs to judge, and every shard of what the iterations sample")
        made = [step.makes for step in self.iterations]
        if self.policies != ["pi0", "offline", *made] or self.final != made[-1]:
            raise ValueError(f"policies must be [pi0, offline, {', '.join(made)}] and final {made[-1]}, as the iterations make them")
        return self


def load(path: Path) -> Params:
    """Read and check a params file. Raises ParamsError."""
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text())
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: {' '.join(str(error).split())}; restore it with: python -m stages.profile quickstart") from error
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
