"""What the room `evaluation` reads of params.yaml: by what policies are judged, stopped and selected."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.guard.sections.kinds import Count, Positive, Raw, Section, Share


class Evaluate(Section):
    proxy: Literal["reward", "pretrained"]
    gold: Literal["quickstart", "none"]
    reads: Literal["measures", "judged_by"]
    judge: Annotated[list[Literal["judge"]], Field(max_length=1)]
    resamples: Count
    confidence: Annotated[float, Field(gt=0, lt=1)]


class Examples(Section):
    by_hash: Count
    extremes: Count
    characters: Count


class Benchmark(Section):
    task: Literal["gsm8k_cot", "gsm8k", "arc_challenge", "mmlu", "truthfulqa_mc2", "humaneval", "mbpp", "ifeval", "own"]
    raw: Raw
    questions: Count | None
    shots: Annotated[int, Field(ge=0)]
    chat: bool
    max_tokens: Count | None

    @model_validator(mode="after")
    def programs_are_continued(self) -> Self:
        if self.chat and self.task in ("humaneval", "mbpp"):
            raise ValueError(f"chat = true, and {self.task} continues a program, which is no turn; set chat = false")
        if self.shots and self.task in ("humaneval", "ifeval"):
            raise ValueError(f"shots = {self.shots}, and {self.task} has no worked examples; set shots = 0")
        return self


class Sandbox(Section):
    seconds: Count
    memory_mib: Annotated[int, Field(ge=64)]


class Chat(Section):
    task: Literal["alpaca_eval", "mt_bench", "arena_hard"]
    raw: Raw
    questions: Count | None
    baseline: str | None
    max_tokens: Count
    words: Raw

    @model_validator(mode="after")
    def a_comparison_has_a_baseline(self) -> Self:
        if self.task == "mt_bench" and self.baseline:
            raise ValueError(f"baseline = {self.baseline!r}, and mt_bench rates each answer alone; set it to null")
        if self.task != "mt_bench" and not self.baseline:
            raise ValueError(
                f"baseline = null, and {self.task} compares; name the field with the answer to compare with"
            )
        return self


class Referee(Section):
    model: Raw
    served: str | None
    top_logprobs: Annotated[int, Field(ge=0, le=20)]
    max_tokens: Count
    limit_by: Literal["max_tokens", "max_completion_tokens"]


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
