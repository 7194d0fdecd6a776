"""What the room `pairs` reads of params.yaml: how scored candidates become pairs, and which are trained on."""

from typing import Annotated, Literal

from pydantic import Field

from stages.guard.sections.data import SetOfPairs
from stages.guard.sections.kinds import Count, NotNegative, Section
from stages.guard.sections.signals import SIGNALS


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
