"""Forward passes without gradients, in batches of about equal numbers of tokens: rewards, and log-probabilities of completions.

`score`, `reward_bench`, `reference` and `measure` share it. Each value depends on its own row alone: order and batching change it
by rounding only (1e-7 in float32), and not even by that where rows of one group keep to themselves.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stages import chat


def batches(lengths: list[int], tokens: int, groups: list[str] | None = None) -> Iterator[list[int]]:
    """Row indices, longest first, so that padded rows x longest stays within `tokens`; a longer row makes a batch of its own.

    With `groups`, a name per row, no batch holds rows of two groups: what a row is batched with does not depend on the other groups.
    """
    group = groups or [""] * len(lengths)
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (group[i], -lengths[i], i)):
        if batch and (group[index] != group[batch[0]] or (len(batch) + 1) * lengths[batch[0]] > tokens):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def over_batches(sequences: list[list[int]], pad: int, runtime: Any, device: Any, compute: Callable, what: str, groups: list[str] | None = None) -> list[float]:
    """`compute(input_ids (B, L) int64, attention_mask (B, L), rows) -> B floats` over right-padded batches, values in the rows' order."""
    import torch
    from tqdm import tqdm

    values = [math.nan] * len(sequences)
    with torch.inference_mode(), tqdm(total=len(sequences), desc=what, unit="row") as bar:
        for rows in batches([len(s) for s in sequences], runtime.forward_batch_tokens, groups):
            width = max(len(sequences[i]) for i in rows)
            ids = torch.tensor([sequences[i] + [pad] * (width - len(sequences[i])) for i in rows], device=device)
            mask = torch.tensor([[1] * len(sequences[i]) + [0] * (width - len(sequences[i])) for i in rows], device=device)
            for i, value in zip(rows, compute(ids, mask, rows), strict=True):
                values[i] = float(value)
            bar.update(len(rows))
    return values


def load(model_class: Any, model: Path, dtype: str, runtime: Any) -> tuple[Any, Any]:
    """A model in evaluation mode on the GPU if there is one, and its device."""
    import torch

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = model_class.from_pretrained(model, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True)
    return loaded.eval().to(device), device


Row = tuple[list[int], list[int]]
"""The token ids of a prompt, up to the assistant header, and of a completion."""


def tokenized(model: Path, rows: list[tuple[list[chat.Message], str, bool]]) -> list[Row]:
    """Rows of (prompt, completion, whether it ended by itself) as ids, by the model's own tokenizer."""
    tokenizer = chat.load_tokenizer(model)
    return [(chat.prompt_ids(tokenizer, p), chat.completion_ids(tokenizer, c, f)) for p, c, f in rows]


def sides(model: Path, pairs: list[dict]) -> list[Row]:
    """The chosen side of every pair, then the rejected side of every pair."""
    return tokenized(model, [(row["prompt"], row[s][0]["content"], row[f"{s}_finished"]) for s in ("chosen", "rejected") for row in pairs])


def rewards(model: Path, rows: list[Row], dtype: str, runtime: Any, groups: list[str] | None = None) -> list[float]:
    """r(x, a) of each row, a logit; `groups` as in `batches`. Raises ValueError where a reward is not finite."""
    from transformers import AutoModelForSequenceClassification

    network, device = load(AutoModelForSequenceClassification, model, dtype, runtime)
    pad = network.config.pad_token_id  # the head reads the last token that is not this one

    def compute(ids: Any, mask: Any, _: list[int]) -> Any:
        return network(input_ids=ids, attention_mask=mask).logits[:, 0].float()

    values = over_batches([prompt + completion for prompt, completion in rows], pad, runtime, device, compute, "score", groups)
    return finite(values, f"{model}: reward")


def logprobs(model: Path, rows: list[Row], dtype: str, runtime: Any, what: str = "log-probabilities") -> list[float]:
    """log pi(a | x) of each row: the sum over the completion's tokens, in nats. Raises ValueError where one is not finite."""
    import torch
    from transformers import AutoModelForCausalLM

    network, device = load(AutoModelForCausalLM, model, dtype, runtime)

    def compute(ids: Any, mask: Any, batch: list[int]) -> Any:
        first = min(len(rows[i][0]) for i in batch) - 1  # the logits before the first completion token decide nothing
        logits = network(input_ids=ids, attention_mask=mask, logits_to_keep=ids.shape[1] - first).logits[:, :-1].float()
        each = torch.gather(logits.log_softmax(-1), 2, ids[:, first + 1 :, None])[..., 0]
        position = torch.arange(first + 1, ids.shape[1], device=device)[None]
        starts = torch.tensor([len(rows[i][0]) for i in batch], device=device)[:, None]
        return (each * (mask[:, first + 1 :] * (position >= starts))).sum(-1)

    values = over_batches([prompt + completion for prompt, completion in rows], 0, runtime, device, compute, what)  # padding is masked
    return finite(values, f"{model}: log-probability")


def finite(values: list[float], name: str) -> list[float]:
    bad = [i for i, v in enumerate(values) if not math.isfinite(v)]
    if bad:
        raise ValueError(f"{name} of row {bad[0]} is {values[bad[0]]}, and {len(bad) - 1} more like it; the model is broken, train it again with a lower rate")
    return values
