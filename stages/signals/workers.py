"""Workers that `stages/rows.py` deals chunks to: the reward of every row, or its log-probability.

Each is small and can be pickled; it loads its model where it works.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from stages import chat, rows
from stages.signals import forward
from stages.signals.batching import Layout


@dataclass(frozen=True)
class Rewards:
    """A worker: rows of prompt, completion and finished to their rewards."""

    model: Path
    dtype: str
    layout: Layout
    alone: bool = True
    columns: ClassVar[pa.Schema] = pa.schema([("reward", pa.float64())])

    def load(self) -> rows.Work:
        tokenizer = chat.load_tokenizer(self.model)
        values = forward.rewards(self.model, self.dtype, self.layout, self.alone)

        def score(asked: list[dict], tick: rows.Tick) -> list[dict]:
            found = values(forward.tokenized(tokenizer, asked), [row["id"] for row in asked], tick)
            return [row | {"reward": value} for row, value in zip(asked, found, strict=True)]

        return score


@dataclass(frozen=True)
class Logprobs:
    """A worker: rows of prompt and answer to log pi of the answer, and its number of tokens.

    The answer is `completion` and `finished`, or, `as_sampled`, the very `token_ids` that were drawn.
    """

    model: Path
    dtype: str
    layout: Layout
    alone: bool = True
    as_sampled: bool = False
    columns: ClassVar[pa.Schema] = pa.schema([("logprob", pa.float64()), ("scored_tokens", pa.int32())])

    def load(self) -> rows.Work:
        tokenizer = chat.load_tokenizer(self.model)
        values = forward.logprobs(self.model, self.dtype, self.layout, self.alone)

        def score(asked: list[dict], tick: rows.Tick) -> list[dict]:
            tokens = forward.tokenized(tokenizer, asked)
            if self.as_sampled:
                tokens = [(prompt, row["token_ids"]) for (prompt, _), row in zip(tokens, asked, strict=True)]
            found = values(tokens, [row["id"] for row in asked], tick)
            return [
                row | {"logprob": value, "scored_tokens": len(completion)}
                for row, value, (_, completion) in zip(asked, found, tokens, strict=True)
            ]

        return score
