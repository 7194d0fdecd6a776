"""What the room `signals` reads of params.yaml: which signals are in use, and what each is told."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.guard.sections.kinds import Count, NotNegative, Raw, Section

SIGNALS = Literal[
    "reward_model", "pretrained", "preference_model", "judge", "self_judge", "ensemble", "implicit", "refreshed",
    "bag_of_words", "longer",
]  # fmt: skip


class Signals(Section):
    """In use where the list holds the signal's own name: DVC makes no stage of an empty list."""

    reward_model: Annotated[list[Literal["reward_model"]], Field(max_length=1)]
    pretrained: Annotated[list[Literal["pretrained"]], Field(max_length=1)]
    preference_model: Annotated[list[Literal["preference_model"]], Field(max_length=1)]
    judge: Annotated[list[Literal["judge"]], Field(max_length=1)]
    self_judge: Annotated[list[Literal["self_judge"]], Field(max_length=1)]
    ensemble: Annotated[list[Literal["ensemble"]], Field(max_length=1)]
    implicit: Annotated[list[Literal["implicit"]], Field(max_length=1)]
    refreshed: Annotated[list[Literal["refreshed"]], Field(max_length=1)]
    bag_of_words: Annotated[list[Literal["bag_of_words"]], Field(max_length=1)]
    longer: Annotated[list[Literal["longer"]], Field(max_length=1)]
    side_by_side: Annotated[list[Literal["all"]], Field(max_length=1)]


class Pairwise(Section):
    ranking: Literal["tournament", "all_pairs"]


class Judge(Section):
    model: Raw
    template: Raw
    served: str | None
    top_logprobs: Annotated[int, Field(ge=0, le=20)]
    max_tokens: Count
    limit_by: Literal["max_tokens", "max_completion_tokens"]


class Ensemble(Section):
    rule: Literal["mean", "worst", "penalised"]
    penalty: NotNegative


class Implicit(Section):
    policy: str
    form: Literal["ratio", "sum", "average"]


class RewardBench(Section):
    raw: Raw


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
