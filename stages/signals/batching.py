"""Batches of about equal numbers of tokens, for forward passes without gradients.

Rows of one group, such as the answers to one prompt, keep to themselves, and what they begin with alike is computed
once. Each value depends on its own row alone: order, batching and sharing change it by rounding only (1e-6 in float32),
and not even by that between runs that see the same groups.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from stages import rows

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
) -> list[Any]:
    """`compute(input_ids (B, L) int64, options of the pass, rows, tokens left out in front) -> B tensors`; what these
    hold, a float or a list of floats, in the rows' order.

    Rows are padded on the right with the model's padding token. Rows of one group leave their common prefix out of
    input_ids and bring its keys and values along (`past_key_values`); the attention mask is over both. A prefix ends
    before a row's limit.
    """
    import torch

    values: list[Any] = [None] * len(sequences)
    pad = network.config.pad_token_id or 0
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
                values[i] = value.tolist()
            tick(len(batch))
    return values


def padded(sequences: list[list[int]], left_out: int, pad: int, device: Any) -> tuple[Any, Any]:
    """Ids (B, L - left_out), and the mask (B, L) of what is no padding; both int64."""
    import torch

    width = max(map(len, sequences))
    ids = [sequence[left_out:] + [pad] * (width - len(sequence)) for sequence in sequences]
    mask = [[1] * len(sequence) + [0] * (width - len(sequence)) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
