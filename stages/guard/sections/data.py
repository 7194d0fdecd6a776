"""What the room `data` reads of params.yaml: the sets of preferences, prompts, demonstrations."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from stages.guard.sections.kinds import Count, NotNegative, Positive, Raw, Section, Share

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


class Phrases(Section):
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
    max_tokens: Count
    per_iteration: Count
    validation: Count
    test: Count
