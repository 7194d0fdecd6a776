"""Workers that `stages/rows.py` deals chunks to: the reward of every row, or its log-probability.

Each is small and can be pickled; it loads its model where it works.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from stages import chat, rows
from stages.signals import forward
from stages.signals.batching import Layout


def reader(model: Path) -> Callable[[list[dict]], list[forward.Row]]:
    """How this model's rows become ids: prompt and completion, as it was trained here; of a reward model that others
    trained, the whole conversation as its own template renders it, whether the answer ended or not.
    """
    contract = model / "reward_contract.json"
    if not contract.exists():
        return partial(forward.tokenized, chat.load_tokenizer(model))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    refused = json.loads(contract.read_text(encoding="utf-8"))["refused"]
    return lambda asked: [(whole(tokenizer, row, model, "system_role" in refused), []) for row in asked]


def whole(tokenizer: Any, row: dict, model: Path, fold: bool) -> list[int]:
    """A row's conversation as ids; `fold`: what the system says becomes the beginning of the first user turn.

    Raises ValueError for one that the template refuses.
    """
    said = [*row["prompt"], {"role": "assistant", "content": row["completion"]}]
    if fold and said[0]["role"] == "system":
        first = {"role": "user", "content": f"{said[0]['content']}\n\n{said[1]['content']}"}
        said = [first, *said[2:]]
    try:
        return chat.rendered(tokenizer, said)
    except ValueError as error:
        raise ValueError(f"{model}, row {row['id']}: {error} (pretrained.template)") from error


@dataclass(frozen=True)
class Rewards:
    """A worker: rows of prompt, completion and finished to their rewards."""

    model: Path
    dtype: str
    layout: Layout
    alone: bool = True
    columns: ClassVar[pa.Schema] = pa.schema([("reward", pa.float64())])

    def load(self) -> rows.Work:
        read, values = reader(self.model), forward.rewards(self.model, self.dtype, self.layout, self.alone)

        def score(asked: list[dict], tick: rows.Tick) -> list[dict]:
            found = values(read(asked), [row["id"] for row in asked], tick)
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
