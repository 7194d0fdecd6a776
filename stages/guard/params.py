"""The one loader of params.yaml: YAML 1.2 (5e-7 is a number), every key known, every value of its type and in its
range.

Raises  ParamsError with one line that names file, key, value, rule and remedy. Sections carry the name of the stage
        that reads them;
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
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


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
            raise ValueError(
                f"rule.{'.'.join(map(str, first['loc']))}: {first['msg']}, for source {self.source}"
            ) from error
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
    from_rival: Annotated[int, Field(ge=0)]
    temperatures: Annotated[list[NotNegative], Field(min_length=1)]
    max_new_tokens: Count

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
    scorer: Literal[
        "reward_model",
        "preference_model",
        "judge",
        "ensemble",
        "implicit",
        "self_judge",
        "refreshed",
        "bag_of_words",
        "longer",
    ]
    pairing: Literal["best_worst", "best_second", "best_random", "all_pairs", "top_bottom", "across"]
    top_k: Count
    length_penalty: NotNegative
    min_margin: NotNegative
    truncated: Literal["keep", "drop", "rejected_only"]


class Offline(Section):
    pairs: Count | None
    train: Literal["data/filtered/train.parquet", "data/offline/mixed.parquet"]
    set: SetOfPairs


class History(Section):
    keep: Literal["newest", "all"]
    offline: bool


class Annotate(Section):
    by: Literal["simulated", "people", "judge"]
    reads: Literal["candidates", "scores/judge"]
    labels: str
    pairs: Count

    @model_validator(mode="after")
    def the_judge_reads_its_scores(self) -> Self:
        wanted = "scores/judge" if self.by == "judge" else "candidates"
        if self.reads != wanted:
            raise ValueError(f"reads = {self.reads!r} must be {wanted!r} where by = {self.by}")
        return self


CONTRASTS = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"}
"""Losses of the difference between the two sides, where other divergences than the reverse KL are defined."""
ALONE = {"simpo", "cpo", "orpo", "kto"}
"""Losses with a trainer of their own, which combines with no other."""
SMOOTHED = {"robust", "exo_pair", "aot", "aot_unpaired", "simpo", "cpo"}


class Dpo(Training):
    loss: Annotated[
        list[
            Literal[
                "sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero",
                "apo_down", "discopop", "sft", "simpo", "cpo", "orpo", "kto",
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
        """What TRL would refuse, ignore or count twice."""
        losses = set(self.loss)
        if len(self.loss_weights) != len(self.loss) or len(losses) < len(self.loss):
            raise ValueError(
                f"loss_weights = {self.loss_weights} must hold one weight for each loss of {self.loss}, each loss once"
            )
        if losses & ALONE and (len(losses) > 1 or self.loss_weights != [1.0]):
            raise ValueError(
                f"loss {min(losses & ALONE)} has a trainer of its own in TRL: it stands alone, with weight 1.0; this is {self.loss}"
            )
        if losses == {"sft"}:
            raise ValueError("loss sft alone learns no preference; put it beside another loss, such as [sigmoid, sft]")
        if self.f_divergence != "reverse_kl" and not losses <= CONTRASTS | {"sft"}:
            wrong = min(losses - CONTRASTS - {"sft"})
            raise ValueError(
                f"f_divergence = {self.f_divergence} is not defined for {wrong}; set it to reverse_kl or take one of {sorted(CONTRASTS)}"
            )
        if self.f_divergence == "alpha_divergence" and self.f_alpha == 1.0:
            raise ValueError(
                "f_alpha = 1.0 makes alpha_divergence the reverse KL, the plain loss; take another, or f_divergence = reverse_kl"
            )
        if self.quantized and not self.lora_rank:
            raise ValueError("quantized weights are frozen, so something else must learn; set lora_rank over 0")
        if self.half and self.lora_rank:
            raise ValueError(
                f"half keeps whole weights, and lora_rank = {self.lora_rank} trains adapters; set half = false or lora_rank = 0"
            )
        return self

    @model_validator(mode="after")
    def options_are_used(self) -> Self:
        """An option that no loss named would read is refused: TRL says nothing and ignores it."""
        losses = set(self.loss)
        for name, value, default, used, rule in (
            ("label_smoothing", self.label_smoothing, 0.0, losses & SMOOTHED, f"one of {sorted(SMOOTHED)}"),
            ("f_alpha", self.f_alpha, 0.5, self.f_divergence == "alpha_divergence", "f_divergence = alpha_divergence"),
            ("ld_alpha", self.ld_alpha, None, not losses & ALONE, f"none of {sorted(ALONE)}"),
            ("discopop_tau", self.discopop_tau, 0.05, "discopop" in losses, "discopop"),
            ("simpo_gamma", self.simpo_gamma, 0.5, "simpo" in losses, "simpo"),
            ("lora_alpha", self.lora_alpha, 16.0, self.lora_rank, "lora_rank over 0"),
        ):
            if value != default and not used:
                raise ValueError(
                    f"{name} = {value} is ignored by the loss {self.loss}: it needs {rule}; set it back to {default}"
                )
        if "exo_pair" in losses and not self.label_smoothing:
            raise ValueError("label_smoothing = 0.0 makes exo_pair infinite; its paper takes 1e-3")
        return self


class Respond(Section):
    temperature: NotNegative
    answers: Count


class Evaluate(Section):
    gold: Literal["quickstart", "none"]
    reads: Literal["measures", "judged"]
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
    id: str
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
            raise ValueError(
                f"deepspeed = {self.deepspeed} shares a model among processes, and processes = 1; raise it or set deepspeed = 0"
            )
        return self


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
    annotate: Annotate
    dpo: Dpo
    respond: Respond
    evaluate: Evaluate
    stop: Stop
    select: Select
    runtime: Runtime

    @model_validator(mode="after")
    def sets_form_a_chain(self) -> Self:
        before = "start"
        for name, entry in self.mix.items():
            if entry.after != before:
                raise ValueError(
                    f"mix.{name}.after = {entry.after!r} must be {before!r}: each set is mixed after the one above it"
                )
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "start":
                raise ValueError(
                    f"mix: a set is named by lower-case letters, digits and _, and not start; {name!r} is not"
                )
            before = name
        if self.mixed != before:
            raise ValueError(f"mixed = {self.mixed!r} must be {before!r}, the last set of the mix")
        return self

    def shards(self) -> list[str]:
        """The shards' numbers, as the first policy's candidates name them."""
        return [name.removeprefix("pi0-") for name in self.candidates if re.fullmatch(r"pi0-\d+", name)]

    @model_validator(mode="after")
    def what_one_section_asks_of_another(self) -> Self:
        if self.rank.pairing == "across" and not self.generate.from_rival:
            raise ValueError(
                "rank.pairing = across pairs completions of two checkpoints, and generate.from_rival = 0 samples from one; raise it"
            )
        if self.rank.pairing == "top_bottom" and 2 * self.rank.top_k > self.generate.n:
            raise ValueError(
                f"rank.top_k = {self.rank.top_k} best and as many worst are more than generate.n = {self.generate.n}; lower it or raise n"
            )
        if self.rank.scorer == "refreshed" and self.annotate.by == "simulated" and self.evaluate.gold == "none":
            rule = "the simulated annotator knows the quickstart's prompts only; set annotate.by to people or judge (and annotate.reads)"
            raise ValueError(f"rank.scorer = refreshed with annotate.by = simulated, and evaluate.gold = none: {rule}")
        if self.select.by == "judge_win_rate" and self.evaluate.reads != "judged":
            raise ValueError(
                f"select.by = judge_win_rate, and evaluate.reads = {self.evaluate.reads}: no judge is asked; set evaluate.reads = judged"
            )
        if self.rank.scorer == "self_judge" and self.judge.served:
            raise ValueError(
                f"rank.scorer = self_judge asks the sampled policy, and judge.served = {self.judge.served!r} another model; set it to null"
            )
        kl = {"stop.max_kl": self.stop.max_kl, "select.max_kl": self.select.max_kl}
        if self.respond.temperature != 1.0 and any(kl.values()):
            name, bound = next((name, bound) for name, bound in kl.items() if bound)
            rule = "only answers at temperature 1 estimate the policy's KL; set it to 1.0, or the rule to null"
            raise ValueError(f"respond.temperature = {self.respond.temperature} and {name} = {bound}: {rule}")
        moving = [step.reference for step in self.iterations if step.reference != "pi0"]
        if moving and (self.history.keep != "newest" or self.history.offline):
            rule = "pairs that an earlier reference saw cannot join in; set history.keep = newest and history.offline = false"
            raise ValueError(f"iterations with reference {moving[0]} train stepwise: {rule}")
        if moving and (free := {"simpo", "cpo", "orpo"} & set(self.dpo.loss)):
            raise ValueError(
                f"iterations with reference {moving[0]} train stepwise, and dpo.loss {min(free)} reads no reference; set reference: pi0"
            )
        return self

    @model_validator(mode="after")
    def iterations_form_a_chain(self) -> Self:
        for k, step in enumerate(self.iterations):
            wanted = (f"t{k}", f"pi{k}", f"pi{k + 1}")
            if (step.id, step.samples, step.makes) != wanted:
                raise ValueError(
                    f"iterations[{k}] must be {{id: {wanted[0]}, samples: {wanted[1]}, makes: {wanted[2]}, ...}}"
                )
            for name, value in (("start", step.start), ("reference", step.reference)):
                if value not in ("pi0", step.samples):
                    raise ValueError(
                        f"iterations[{k}].{name} = {value!r} must be pi0 or {step.samples}, the policy that the iteration samples from"
                    )
            before, halves = ["base", *(f"pi{i}" for i in range(k))], [f"pi{i + 1}/half" for i in range(k)]
            if step.rival not in before + halves * self.dpo.half:
                rule = f"must be one of {before}, or with dpo.half = true of {halves}: a checkpoint made before {step.samples}"
                raise ValueError(f"iterations[{k}].rival = {step.rival!r} {rule}")
        made = [step.makes for step in self.iterations]
        sampled = [
            "heldout",
            "reward_bench",
            *(f"{step.samples}-{shard}" for step in self.iterations for shard in self.shards()),
        ]
        if self.candidates != sampled:
            raise ValueError(
                f"candidates must be [{', '.join(sampled)}]: the pairs to judge, and every shard of what the iterations sample"
            )
        if self.policies != ["pi0", "offline", *made] or self.final != made[-1]:
            raise ValueError(
                f"policies must be [pi0, offline, {', '.join(made)}] and final {made[-1]}, as the iterations make them"
            )
        return self


def load(path: Path) -> Params:
    """Read and check a params file. Raises ParamsError."""
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text())
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
