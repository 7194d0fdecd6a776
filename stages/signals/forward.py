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
from functools import cache
from pathlib import Path
from typing import Any

from stages import chat

Row = tuple[list[int], list[int]]
"""The token ids of a prompt, up to the assistant header, and of a completion."""


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
    runtime: Any,
    device: Any,
    compute: Callable,
    what: str,
    groups: list[str] | None,
    limits: list[int] | None = None,
) -> list[float]:
    """`compute(input_ids (B, L) int64, options of the forward pass, rows, tokens left out in front) -> B floats`, values in the rows' order.

    Rows are padded on the right with the model's padding token. Rows of one group leave their common prefix out of input_ids and bring its keys
    and values along (`past_key_values`); the attention mask is over both. A prefix ends before a row's limit.
    """  # fmt: skip
    import torch
    from tqdm import tqdm

    values, pad = [math.nan] * len(sequences), network.config.pad_token_id or 0
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups or []):
        members.setdefault(group, []).append(i)
    prefix, of = Prefix(network, [], device), ""
    with torch.inference_mode(), tqdm(total=len(sequences), desc=what, unit="row") as bar:
        for rows in batches([len(s) for s in sequences], runtime.forward_batch_tokens, groups):
            if groups and groups[rows[0]] != of:
                of = groups[rows[0]]
                prefix = Prefix(network, [sequences[i][: limits[i] if limits else None] for i in members[of]], device)
            width = max(len(sequences[i]) for i in rows)
            ids = torch.tensor(
                [sequences[i][prefix.tokens :] + [pad] * (width - len(sequences[i])) for i in rows], device=device
            )
            mask = torch.tensor(
                [[1] * len(sequences[i]) + [0] * (width - len(sequences[i])) for i in rows], device=device
            )
            options = {"attention_mask": mask, **prefix.options(len(rows))}
            for i, value in zip(rows, compute(ids, options, rows, prefix.tokens), strict=True):
                values[i] = float(value)
            bar.update(len(rows))
    return values


def load(model_class: Any, model: Path, dtype: str, runtime: Any, **more: Any) -> tuple[Any, Any]:
    """A model in evaluation mode on the GPU if there is one, and its device; `more` options of from_pretrained.

    Raises ValueError where the folder lacks some of its weights.
    """
    import torch

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = {
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
    }
    network, found = model_class.from_pretrained(model, **options, **more)
    if found["missing_keys"]:
        raise ValueError(
            f"{model}: has no weights for {sorted(found['missing_keys'])[0]}, so it is no {model_class.__name__[9:]}; name a model with that head"
        )
    return network.eval().to(device), device


def context(network: Any) -> float:
    """How many tokens the model was made for."""
    return getattr(network.config, "max_position_embeddings", None) or math.inf


def check_rows(sequences: list[list[int]], network: Any, model: Path) -> None:
    """Raise ValueError for a row that is longer than the model's context or holds a token that it does not know."""
    most, known = context(network), network.get_input_embeddings().num_embeddings
    for i, row in enumerate(sequences):
        if len(row) > most:
            raise ValueError(
                f"{model}: row {i} has {len(row)} tokens, the context is {most}; lower filter.max_tokens or generate.max_new_tokens"
            )
        if max(row) >= known:
            raise ValueError(
                f"{model}: its tokenizer gives token {max(row)}, its weights know {known}; save the tokenizer that the model was trained with"
            )


def tokenized(model: Path, rows: list[tuple[list[chat.Message], str, bool]]) -> list[Row]:
    """Rows of (prompt, completion, whether it ended by itself) as ids, by the model's own tokenizer; a prompt that
    many rows share is rendered once.
    """
    tokenizer = chat.load_tokenizer(model)
    prompts = {str(p): p for p, _, _ in rows}
    known = {name: chat.prompt_ids(tokenizer, p) for name, p in prompts.items()}
    return [(known[str(p)], chat.completion_ids(tokenizer, c, f)) for p, c, f in rows]


def sides(model: Path, pairs: list[dict]) -> list[Row]:
    """The chosen side of every pair, then the rejected side of every pair."""
    return tokenized(
        model,
        [(row["prompt"], row[s][0]["content"], row[f"{s}_finished"]) for s in ("chosen", "rejected") for row in pairs],
    )


def rewards(model: Path, rows: list[Row], dtype: str, runtime: Any, groups: list[str] | None = None) -> list[float]:
    """r(x, a) of each row, a logit; `groups` as in `batches`.

    Raises ValueError for a model without one scalar output, or a reward that is not finite.
    """
    from transformers import AutoModelForSequenceClassification

    network, device = load(AutoModelForSequenceClassification, model, dtype, runtime)
    if network.config.num_labels != 1:
        raise ValueError(
            f"{model}: its head has {network.config.num_labels} outputs, a reward is one; name a model that was trained with num_labels=1"
        )
    if network.config.pad_token_id is None:
        raise ValueError(
            f"{model}: config.json has no pad_token_id, and the head reads the last token that is not padding; set it to the tokenizer's"
        )
    sequences = [prompt + completion for prompt, completion in rows]
    check_rows(sequences, network, model)

    def compute(ids: Any, options: dict, *_: Any) -> Any:
        return network(input_ids=ids, **options).logits[:, 0].float()

    return finite(over_batches(network, sequences, runtime, device, compute, "score", groups), f"{model}: reward")


def logprobs(
    model: Path,
    rows: list[Row],
    dtype: str,
    runtime: Any,
    what: str = "log-probabilities",
    groups: list[str] | None = None,
    **more: Any,
) -> list[float]:
    """log pi(a | x) of each row: the sum over the completion's tokens, in nats; `more` as in `load`.

    Raises ValueError where one is not finite.
    """
    import torch
    from transformers import AutoModelForCausalLM

    network, device = load(AutoModelForCausalLM, model, dtype, runtime, **more)
    sequences = [prompt + completion for prompt, completion in rows]
    check_rows(sequences, network, model)

    def compute(ids: Any, options: dict, batch: list[int], shared: int) -> Any:
        starts = torch.tensor([len(rows[i][0]) - shared for i in batch], device=device)[:, None]
        first = int(starts.min()) - 1  # the logits before the first completion token decide nothing
        logits = network(input_ids=ids, logits_to_keep=ids.shape[1] - first, **options).logits[:, :-1].float()
        each = torch.gather(logits.log_softmax(-1), 2, ids[:, first + 1 :, None])[..., 0]
        position = torch.arange(first + 1, ids.shape[1], device=device)[None]
        return (each * (options["attention_mask"][:, shared + first + 1 :] * (position >= starts))).sum(-1)

    limits = [
        len(prompt) for prompt, _ in rows
    ]  # the last prompt token must be computed: the first completion token is predicted there
    return finite(
        over_batches(network, sequences, runtime, device, compute, what, groups, limits), f"{model}: log-probability"
    )


def next_token_odds(
    model: Path, tokens: tuple[int, int], dtype: str, runtime: Any
) -> Callable[[list[list[int]], list[str]], list[float | None]]:
    """A function of prompts and their groups: p_first / (p_first + p_second) of the two `tokens` as the one that
    follows each prompt.

    None for a prompt that is longer than the model's context. The model is loaded at the first call, and once. Raises
    ValueError where a probability is not finite.
    """
    import torch
    from transformers import AutoModelForCausalLM

    loaded = cache(lambda: load(AutoModelForCausalLM, model, dtype, runtime))

    def odds(prompts: list[list[int]], groups: list[str]) -> list[float | None]:
        network, device = loaded()
        fit = [i for i, prompt in enumerate(prompts) if len(prompt) <= context(network)]
        short = [prompts[i] for i in fit]
        check_rows(short, network, model)

        def compute(ids: Any, options: dict, batch: list[int], shared: int) -> Any:
            last = torch.tensor([len(short[i]) - shared - 1 for i in batch], device=device)
            kept, where = last.unique(return_inverse=True)
            logits = (
                network(input_ids=ids, logits_to_keep=kept, **options)
                .logits[torch.arange(len(batch), device=device), where]
                .float()
            )
            return (logits[:, tokens[0]] - logits[:, tokens[1]]).sigmoid()

        values = over_batches(network, short, runtime, device, compute, "compare", [groups[i] for i in fit])
        known = dict(zip(fit, finite(values, f"{model}: probability"), strict=True))
        return [known.get(i) for i in range(len(prompts))]

    return odds


def finite(values: list[float], name: str) -> list[float]:
    bad = [i for i, v in enumerate(values) if not math.isfinite(v)]
    if bad:
        raise ValueError(
            f"{name} of row {bad[0]} is {values[bad[0]]}, and {len(bad) - 1} more like it; the model is broken, train it again with a lower rate"
        )
    return values
