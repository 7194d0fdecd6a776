"""Forward passes without gradients: rewards, log-probabilities of completions, and the odds between two words that may
come next.

The scorers, `reference` and `measure` share it. Batches hold about equal numbers of tokens. Rows of one group, such as
the answers to one prompt, keep to themselves, and what they begin with alike is computed once. Each value depends on
its own row alone: order, batching and sharing change it by rounding only (1e-6 in float32), and not even by that
between runs that see the same groups.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pyarrow as pa

from stages import chat, rows

Row = tuple[list[int], list[int]]
"""The token ids of a prompt, up to the assistant header, and of a completion."""
Values = Callable[[list[Row], list[str], rows.Tick], list[float]]
"""A number for each row; the second list names every row's prompt."""
CHUNK = 128
"""Rows of a chunk whose prompts are batched alone, so that its cut changes nothing: half a minute on two cores."""
MIXED_CHUNK = 512
"""Sequences of a chunk whose batches mix prompts. Here the cut decides what a row is padded with, and so its last bits:
a constant, the same whatever the machine and whoever was killed; a minute on two cores.
"""


class Layout(NamedTuple):
    """What of `runtime` a forward pass needs."""

    threads: int | None
    forward_batch_tokens: int


def layout(runtime: Any) -> Layout:
    return Layout(runtime.threads, runtime.forward_batch_tokens)


def batches(lengths: list[int], tokens: int, groups: list[str] | None = None) -> Iterator[list[int]]:
    """Row indices, longest first, so that padded rows x longest stays within `tokens`; a longer row makes a batch of
    its own.

    A batch ends early where its padding would cost more than one more pass, taken as tokens / 32. With `groups`, a
    name per row, no batch holds rows of two groups: what a row is batched with does not depend on the other groups.
    """
    group = groups or [""] * len(lengths)
    left, batch = Counter(group), []
    for index in sorted(range(len(lengths)), key=lambda i: (group[i], -lengths[i], i)):
        if batch:
            longest = lengths[batch[0]]
            padding = (longest - lengths[index]) * min(left[group[index]], tokens // longest - len(batch))
            if group[index] != group[batch[0]] or (len(batch) + 1) * longest > tokens or padding > tokens / 32:
                yield batch
                batch = []
        batch.append(index)
        left[group[index]] -= 1
    if batch:
        yield batch


def common_prefix(sequences: list[list[int]]) -> int:
    """How many tokens all sequences begin with alike; the last token of each is never counted, since something must be
    left to compute.
    """
    first, last = min(sequences), max(sequences)
    limit = min(map(len, sequences)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


class Prefix:
    """What the rows of one group begin with alike: its keys and values are computed once and repeated for every batch
    of the group.
    """

    def __init__(self, network: Any, rows: list[list[int]], device: Any) -> None:
        import torch

        self.tokens = common_prefix(rows) if len(rows) > 1 else 0
        self.past = None
        if self.tokens:
            self.past = network.base_model(
                input_ids=torch.tensor([rows[0][: self.tokens]], device=device), use_cache=True
            ).past_key_values

    def options(self, rows: int) -> dict[str, Any]:
        """Of the forward pass of so many rows of the group."""
        if self.past is None:
            return {"use_cache": False}
        past = copy.deepcopy(self.past)
        past.batch_repeat_interleave(rows)
        return {"past_key_values": past, "use_cache": True}


def over_batches(
    network: Any,
    sequences: list[list[int]],
    layout: Layout,
    device: Any,
    compute: Callable,
    tick: rows.Tick,
    groups: list[str] | None,
    limits: list[int] | None = None,
) -> list[float]:
    """`compute(input_ids (B, L) int64, options of the pass, rows, tokens left out in front) -> B floats`, values in the
    rows' order.

    Rows are padded on the right with the model's padding token. Rows of one group leave their common prefix out of
    input_ids and bring its keys and values along (`past_key_values`); the attention mask is over both. A prefix ends
    before a row's limit.
    """
    import torch

    values, pad = [math.nan] * len(sequences), network.config.pad_token_id or 0
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups or []):
        members.setdefault(group, []).append(i)
    prefix, of = Prefix(network, [], device), None
    with torch.inference_mode():
        for batch in batches([len(s) for s in sequences], layout.forward_batch_tokens, groups):
            if groups and groups[batch[0]] != of:
                of = groups[batch[0]]
                beginnings = [sequences[i][: limits[i] if limits else None] for i in members[of]]
                prefix = Prefix(network, beginnings, device)
            ids, mask = padded([sequences[i] for i in batch], prefix.tokens, pad, device)
            options = {"attention_mask": mask, **prefix.options(len(batch))}
            for i, value in zip(batch, compute(ids, options, batch, prefix.tokens), strict=True):
                values[i] = float(value)
            tick(len(batch))
    return values


def padded(sequences: list[list[int]], left_out: int, pad: int, device: Any) -> tuple[Any, Any]:
    """Ids (B, L - left_out), and the mask (B, L) of what is no padding; both int64."""
    import torch

    width = max(map(len, sequences))
    ids = [sequence[left_out:] + [pad] * (width - len(sequence)) for sequence in sequences]
    mask = [[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def load(model_class: Any, model: Path, dtype: str, layout: Layout, **more: Any) -> tuple[Any, Any]:
    """A model in evaluation mode on the GPU if there is one, and its device; `more` options of from_pretrained.

    Raises ValueError where the folder lacks some of its weights.
    """
    import torch

    if layout.threads:
        torch.set_num_threads(layout.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = {
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
    }
    network, found = model_class.from_pretrained(model, **options, **more)
    if found["missing_keys"]:
        missing, wanted = sorted(found["missing_keys"])[0], model_class.__name__.removeprefix("AutoModel")
        raise ValueError(f"{model}: has no weights for {missing}, so it is no {wanted}; name a model with that head")
    return network.eval().to(device), device


def context(network: Any) -> float:
    """How many tokens the model was made for."""
    return getattr(network.config, "max_position_embeddings", None) or math.inf


def check_rows(sequences: list[list[int]], names: list[str], network: Any, model: Path) -> None:
    """Raise ValueError for a row that is longer than the model's context or holds a token that it does not know."""
    most, known = context(network), network.get_input_embeddings().num_embeddings
    for name, row in zip(names, sequences, strict=True):
        if len(row) > most:
            told = f"{model}: a row of prompt {name} has {len(row)} tokens, the context is {most}"
            raise ValueError(f"{told}; lower filter.max_tokens or generate.max_new_tokens")
        if max(row) >= known:
            told = f"{model}: its tokenizer gives token {max(row)}, its weights know {known}"
            raise ValueError(f"{told}; save the tokenizer that the model was trained with")


def finite(values: list[float], names: list[str], what: str) -> list[float]:
    """The values. Raises ValueError where one is not finite."""
    bad = [i for i, v in enumerate(values) if not math.isfinite(v)]
    if bad:
        told = f"{what} of a row of prompt {names[bad[0]]} is {values[bad[0]]}, and {len(bad) - 1} more like it"
        raise ValueError(f"{told}; the model is broken, train it again with a lower rate")
    return values


def tokenized(tokenizer: Any, asked: list[dict]) -> list[Row]:
    """Rows of prompt, completion, finished as ids, by the model's own tokenizer; a prompt that many rows share is
    rendered once.
    """
    prompts = {str(row["prompt"]): row["prompt"] for row in asked}
    known = {name: chat.prompt_ids(tokenizer, prompt) for name, prompt in prompts.items()}
    return [
        (known[str(row["prompt"])], chat.completion_ids(tokenizer, row["completion"], row["finished"])) for row in asked
    ]


def rewards(model: Path, dtype: str, layout: Layout, alone: bool = True) -> Values:
    """Load a reward model: r(x, a) of each row, a logit; `alone` batches every prompt's rows alone.

    Raises ValueError for a model without one scalar output, later for a reward that is not finite.
    """
    from transformers import AutoModelForSequenceClassification

    network, device = load(AutoModelForSequenceClassification, model, dtype, layout)
    if network.config.num_labels != 1:
        told = f"{model}: its head has {network.config.num_labels} outputs, a reward is one"
        raise ValueError(f"{told}; name a model that was trained with num_labels=1")
    if network.config.pad_token_id is None:
        told = f"{model}: config.json has no pad_token_id, and the head reads the last token that is not padding"
        raise ValueError(f"{told}; set it to the tokenizer's")

    def compute(ids: Any, options: dict, *_: Any) -> Any:
        return network(input_ids=ids, **options).logits[:, 0].float()

    def values(tokens: list[Row], names: list[str], tick: rows.Tick) -> list[float]:
        sequences = [prompt + completion for prompt, completion in tokens]
        check_rows(sequences, names, network, model)
        found = over_batches(network, sequences, layout, device, compute, tick, names if alone else None)
        return finite(found, names, f"{model}: reward")

    return values


def logprobs(model: Path, dtype: str, layout: Layout, alone: bool = True, **more: Any) -> Values:
    """Load a language model: log pi(a | x) of each row, the sum over the completion's tokens, in nats; `alone` as in
    `rewards`, `more` as in `load`.

    Raises ValueError, later, where one is not finite.
    """
    import torch
    from transformers import AutoModelForCausalLM

    network, device = load(AutoModelForCausalLM, model, dtype, layout, **more)

    def values(tokens: list[Row], names: list[str], tick: rows.Tick) -> list[float]:
        sequences = [prompt + completion for prompt, completion in tokens]
        check_rows(sequences, names, network, model)

        def compute(ids: Any, options: dict, batch: list[int], shared: int) -> Any:
            starts = torch.tensor([len(tokens[i][0]) - shared for i in batch], device=device)[:, None]
            first = int(starts.min()) - 1  # the logits before the first completion token decide nothing
            logits = network(input_ids=ids, logits_to_keep=ids.shape[1] - first, **options).logits[:, :-1].float()
            each = torch.gather(logits.log_softmax(-1), 2, ids[:, first + 1 :, None])[..., 0]
            position = torch.arange(first + 1, ids.shape[1], device=device)[None]
            return (each * (options["attention_mask"][:, shared + first + 1 :] * (position >= starts))).sum(-1)

        # the last prompt token must be computed: the first completion token is predicted there
        limits = [len(prompt) for prompt, _ in tokens]
        found = over_batches(network, sequences, layout, device, compute, tick, names if alone else None, limits)
        return finite(found, names, f"{model}: log-probability")

    return values


def next_token_odds(
    model: Path, letters: tuple[int, int], dtype: str, layout: Layout
) -> Callable[[list[list[int]], list[str]], list[float | None]]:
    """Load a language model: p_first / (p_first + p_second) of the two `letters` as the token that follows each prompt,
    from prompts and their groups.

    None for a prompt that is longer than the model's context. Raises ValueError, later, where a probability is not
    finite.
    """
    import torch
    from transformers import AutoModelForCausalLM

    network, device = load(AutoModelForCausalLM, model, dtype, layout)

    def odds(prompts: list[list[int]], groups: list[str]) -> list[float | None]:
        fit = [i for i, prompt in enumerate(prompts) if len(prompt) <= context(network)]
        short, names = [prompts[i] for i in fit], [groups[i] for i in fit]
        check_rows(short, names, network, model)

        def compute(ids: Any, options: dict, batch: list[int], shared: int) -> Any:
            last = torch.tensor([len(short[i]) - shared - 1 for i in batch], device=device)
            kept, where = last.unique(return_inverse=True)
            logits = network(input_ids=ids, logits_to_keep=kept, **options).logits
            each = logits[torch.arange(len(batch), device=device), where].float()
            return (each[:, letters[0]] - each[:, letters[1]]).sigmoid()

        values = over_batches(network, short, layout, device, compute, lambda rows: None, names)
        known = dict(zip(fit, finite(values, names, f"{model}: probability"), strict=True))
        return [known.get(i) for i in range(len(prompts))]

    return odds


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
        values = rewards(self.model, self.dtype, self.layout, self.alone)

        def score(asked: list[dict], tick: rows.Tick) -> list[dict]:
            found = values(tokenized(tokenizer, asked), [row["id"] for row in asked], tick)
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
        values = logprobs(self.model, self.dtype, self.layout, self.alone)

        def score(asked: list[dict], tick: rows.Tick) -> list[dict]:
            tokens = tokenized(tokenizer, asked)
            if self.as_sampled:
                tokens = [(prompt, row["token_ids"]) for (prompt, _), row in zip(tokens, asked, strict=True)]
            found = values(tokens, [row["id"] for row in asked], tick)
            return [
                row | {"logprob": value, "scored_tokens": len(completion)}
                for row, value, (_, completion) in zip(asked, found, tokens, strict=True)
            ]

        return score
