"""What the room `evaluation` reads of params.yaml: by what policies are judged, stopped and selected."""

from typing import Annotated, Literal

from pydantic import Field

from stages.guard.sections.kinds import Count, Positive, Section, Share


class Evaluate(Section):
    proxy: Literal["reward", "pretrained"]
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
