"""The sections of params.yaml: every key, its type and range, and what the keys of one section ask of each other.

Sections carry the name of the stage that reads them; `runtime` says how the work is laid out on this machine, is
tracked by no stage and changes no result. What one section asks of another stands in agreement.py.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from stages.training import losses

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NOT_HANDED_ON = re.compile(r'["$`\\\x00-\x1f\x7f]')
"""What a shell does not leave as it is between double quotes; sh, bash and zsh leave all else."""


def quotable(path: str) -> str:
    """A path that dvc.yaml puts into a command as `"${...}"`. Raises ValueError that says what to rename."""
    if not path.strip():
        raise ValueError("is empty; name a file or a folder")
    if path.startswith("-"):
        raise ValueError(f"begins with -, as an option does; write ./{path}")
    if found := NOT_HANDED_ON.search(path):
        raise ValueError(f"holds {found[0]!r}, which a shell does not hand on; rename the file")
    return path


Raw = Annotated[str, AfterValidator(quotable)]
"""A path that a command receives."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Base(Section):
    model: str
    revision: str | None


SOURCES = Literal[
    "argilla_math", "capybara", "code_ultrafeedback", "helpsteer", "hh_rlhf", "nectar", "open_orca", "own",
    "pku_saferlhf", "quickstart", "shp",
    "summarize", "ultrafeedback", "ultrainteract",
]  # fmt: skip


class NoRule(Section):
    pass


class ShpRule(Section):
    min_ratio: Positive
    pairs_per_post: Count


class HelpsteerRule(Section):
    aspects: Annotated[
        list[Literal["helpfulness", "correctness", "coherence", "complexity", "verbosity"]], Field(min_length=1)
    ]


class OpenOrcaRule(Section):
    min_chosen_score: NotNegative


class NectarRule(Section):
    rejected: Literal["worst", "random"]


RULES: dict[str, type[Section]] = {
    "shp": ShpRule,
    "helpsteer": HelpsteerRule,
    "open_orca": OpenOrcaRule,
    "nectar": NectarRule,
}


class SetFilter(Section):
    min_margin: NotNegative
    rows: NotNegative

    @model_validator(mode="after")
    def rows_are_a_share_or_a_number(self) -> Self:
        if self.rows > 1 and self.rows % 1:
            raise ValueError(f"rows = {self.rows} must be 0 for all, a share under 1, or a whole number")
        return self


class SetOfPairs(Section):
    source: SOURCES
    raw: Raw
    rule: dict
    filter: SetFilter

    @model_validator(mode="after")
    def rule_is_the_sources(self) -> Self:
        try:
            RULES.get(self.source, NoRule).model_validate(self.rule)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(
                f"rule.{'.'.join(map(str, first['loc']))}: {first['msg']}, for source {self.source}"
            ) from error
        return self


class SetInMix(SetOfPairs):
    after: str


class Benchmarks(Section):
    raw: Raw
    words: Annotated[int, Field(ge=4)]


class Filter(Section):
    max_tokens: Count
    near_duplicates: Share


class Split(Section):
    heldout_share: Annotated[float, Field(gt=0, lt=1)]


class Audit(Section):
    rows: Count


class Demonstrations(Section):
    raw: Raw


class Prompts(Section):
    raw: Raw
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
    model: Raw
    template: Raw
    served: str | None
    top_logprobs: Annotated[int, Field(ge=0, le=20)]


class Ensemble(Section):
    rule: Literal["mean", "worst", "penalised"]
    penalty: NotNegative


class Implicit(Section):
    policy: str
    form: Literal["ratio", "sum", "average"]


class RewardBench(Section):
    raw: Raw


SIGNALS = Literal[
    "reward_model", "preference_model", "judge", "self_judge", "ensemble", "implicit", "refreshed", "bag_of_words",
    "longer",
]  # fmt: skip


class Signals(Section):
    """In use where the list holds the signal's own name: DVC makes no stage of an empty list."""

    reward_model: Annotated[list[Literal["reward_model"]], Field(max_length=1)]
    preference_model: Annotated[list[Literal["preference_model"]], Field(max_length=1)]
    judge: Annotated[list[Literal["judge"]], Field(max_length=1)]
    self_judge: Annotated[list[Literal["self_judge"]], Field(max_length=1)]
    ensemble: Annotated[list[Literal["ensemble"]], Field(max_length=1)]
    implicit: Annotated[list[Literal["implicit"]], Field(max_length=1)]
    refreshed: Annotated[list[Literal["refreshed"]], Field(max_length=1)]
    bag_of_words: Annotated[list[Literal["bag_of_words"]], Field(max_length=1)]
    longer: Annotated[list[Literal["longer"]], Field(max_length=1)]
    side_by_side: Annotated[list[Literal["all"]], Field(max_length=1)]


class Generate(Section):
    n: Annotated[int, Field(ge=2)]
    from_rival: Annotated[int, Field(ge=0)]
    temperatures: Annotated[list[NotNegative], Field(min_length=1)]
    max_new_tokens: Count
    rows_per_shard: Count

    @model_validator(mode="after")
    def n_is_shared_evenly(self) -> Self:
        for name, number in (("n", self.n), ("from_rival", self.from_rival)):
            if number % len(self.temperatures):
                raise ValueError(f"{name} = {number} must be a multiple of the {len(self.temperatures)} temperatures")
        if self.from_rival >= self.n:
            raise ValueError(
                f"from_rival = {self.from_rival} must be less than n = {self.n}: some completions are the policy's own"
            )
        return self


class Rank(Section):
    scorer: SIGNALS
    pairing: Literal["best_worst", "best_second", "best_random", "all_pairs", "top_bottom", "across"]
    top_k: Count
    length_penalty: NotNegative
    min_margin: NotNegative
    truncated: Literal["keep", "drop", "rejected_only"]


class Offline(Section):
    pairs: Count | None
    train: Literal["data/filtered/train.parquet", "data/offline/mixed.parquet"]
    set: Annotated[dict[str, SetOfPairs], Field(max_length=1)]


class History(Section):
    keep: Literal["newest", "all"]
    offline: bool


class Annotate(Section):
    by: Literal["simulated", "people", "judge"]
    reads: Literal["candidates", "scores/judge"]
    labels: Raw
    pairs: Count

    @model_validator(mode="after")
    def the_judge_reads_its_scores(self) -> Self:
        wanted = "scores/judge" if self.by == "judge" else "candidates"
        if self.reads != wanted:
            raise ValueError(f"reads = {self.reads!r} must be {wanted!r} where by = {self.by}")
        return self


class Dpo(Training):
    loss: Annotated[
        list[
            Literal[
                "sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard",
                "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "simpo", "cpo", "orpo", "kto",
            ]
        ],
        Field(min_length=1),
    ]  # fmt: skip
    loss_weights: list[Positive]
    beta: Positive
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    f_divergence: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]
    f_alpha: float
    ld_alpha: Share | None
    discopop_tau: Positive
    simpo_gamma: NotNegative
    lora_rank: Annotated[int, Field(ge=0)]
    lora_alpha: Positive
    quantized: bool
    half: bool

    @model_validator(mode="after")
    def losses_combine(self) -> Self:
        losses.check(self)
        if self.quantized and not self.lora_rank:
            raise ValueError("quantized weights are frozen, so something else must learn; set lora_rank over 0")
        if self.half and self.lora_rank:
            told = f"half keeps whole weights, and lora_rank = {self.lora_rank} trains adapters"
            raise ValueError(f"{told}; set half = false or lora_rank = 0")
        return self


class Respond(Section):
    temperature: NotNegative
    answers: Count


class Evaluate(Section):
    gold: Literal["quickstart", "none"]
    reads: Literal["measures", "judged_by"]
    judge: Annotated[list[Literal["judge"]], Field(max_length=1)]
    resamples: Count
    confidence: Annotated[float, Field(gt=0, lt=1)]


class Stop(Section):
    max_kl: Positive | None
    max_tokens: Positive | None
    min_finished: Share | None
    max_repetition: Share | None
    min_distinct_2: Share | None


class Select(Section):
    by: Literal["proxy_reward", "proxy_win_rate", "judge_win_rate"]
    max_kl: Positive | None
    max_tokens: Positive | None


class Iteration(Section):
    samples: str
    makes: str
    start: str
    reference: str
    rival: str


class Runtime(Section):
    processes: Count
    deepspeed: Annotated[int, Field(ge=0, le=3)]
    threads: Count | None
    micro_batch_rows: Count
    forward_batch_tokens: Count
    gradient_checkpointing: bool
    checkpoint_steps: Annotated[int, Field(ge=0)]
    engine_sequences: Count
    engine_memory_share: Annotated[float, Field(gt=0, le=1)]
    engine_cpu_cache_gib: Count
    tensor_parallel: Count
    judge_url: str
    judge_connections: Count

    @model_validator(mode="after")
    def deepspeed_has_processes(self) -> Self:
        if self.deepspeed and self.processes == 1:
            told = f"deepspeed = {self.deepspeed} shares a model among processes, and processes = 1"
            raise ValueError(f"{told}; raise it or set deepspeed = 0")
        return self
