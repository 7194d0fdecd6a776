"""What the room `sampling` reads of params.yaml: the iterations, candidates and answers."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.guard.sections.kinds import Count, NotNegative, Section


class Iteration(Section):
    samples: str
    makes: str
    start: str
    reference: str
    rival: str


class Generate(Section):
    n: Annotated[int, Field(ge=2)]
    from_rival: Annotated[int, Field(ge=0)]
    temperatures: Annotated[list[NotNegative], Field(min_length=1)]
    max_new_tokens: Count
    thinking: Literal["keep", "strip"]
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


class Respond(Section):
    temperature: NotNegative
    answers: Count
