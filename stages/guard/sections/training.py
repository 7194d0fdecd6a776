"""What the room `training` reads of params.yaml: the base model and every trainer."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stages.guard.sections.kinds import Count, NotNegative, Positive, Raw, Section, Share
from stages.training import losses

Settings = dict[Annotated[str, Field(pattern=r"^[a-z_]+$")], str | bool | int | float | None]
"""Names that a chat template reads, and their values."""


class Base(Section):
    model: str
    revision: str | None
    template: Raw
    template_settings: Settings
    system_role: Literal["keep", "fold"]

    @model_validator(mode="after")
    def a_random_model_is_drawn_from_a_number(self) -> Self:
        if self.model == "tiny-random" and not (self.revision or "").isdecimal():
            raise ValueError(f"revision = {self.revision}: tiny-random is drawn from a number, such as '1'")
        return self


class StartFrom(Section):
    policy: str
    reward_model: str
    preference_model: str


class Pretrained(Section):
    model: str | None
    revision: str | None
    template: Raw
    template_settings: Settings


class Training(Section):
    learning_rate: Positive
    epochs: Count
    global_batch_rows: Count
    warmup_share: Share
    max_tokens: Count


class Sft(Training):
    rows: Annotated[int, Field(ge=0)] | None
    turns: Literal["last", "all"]
    packing: bool


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
            raise ValueError("quantized = true freezes the weights, so something else must learn; set lora_rank over 0")
        if self.half and self.lora_rank:
            told = f"half = true keeps whole weights, and lora_rank = {self.lora_rank} trains adapters"
            raise ValueError(f"{told}; set half = false or lora_rank = 0")
        return self
