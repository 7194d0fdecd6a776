"""Train a causal language model on rows of token ids and labels, one by one or packed; `sft` and `preference_model`
share it.

Packed, as many rows as fit into max_tokens make one (TRL's best fit, longest first), and none sees another: positions
begin again at every seam, and attention stays within them. A packed row counts as one of global_batch_rows, so that a
step has about as many tokens as the next, and an epoch has fewer steps. Each is a micro-batch of its own: TRL makes one
sequence of a micro-batch, and attention costs the square of its length.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stages.training import harness, steps, tokens

SCHEMA = pa.schema({"input_ids": tokens.IDS, "labels": tokens.IDS})
"""-100 is the label of a token that is not learnt; a row begins with one."""


def packed(rows: Any, section: Any) -> Any:
    """The rows as they are trained on, none of which is over section.max_tokens. The first process that comes packs
    them, beside what it was made of; the others wait and read.
    """
    from trl import pack_dataset

    if not section.packing:
        return rows
    with (Path(rows.cache_files[0]["filename"]).parent / "packing").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return pack_dataset(rows, section.max_tokens, "bfd")


def trainer(params: Any, section: Any, rows: Any, tokenizer: Any, load: Callable[[], Any]) -> Any:
    """TRL's SFTTrainer on what `packed` gave. The model is loaded when the settings are there: ZeRO-3 then parts its
    weights as they are read. A pass before the first step would upset ZeRO-3 (its backward pass finds weights of no
    size), so the first process asks `check_apart` of a copy that is its own.

    Raises ValueError where rows are packed and the model would let them see each other.
    """
    from trl import SFTConfig, SFTTrainer

    if section.packing and os.environ.get("RANK", "0") == "0":
        check_apart(load(), tokenizer)

    class Trainer(steps.Ordered, SFTTrainer): ...

    # without max_length and with nothing to prepare, or TRL would read all rows again
    ready = {"max_length": None, "padding_free": section.packing, "dataset_kwargs": {"skip_prepare_dataset": True}}
    options = harness.arguments(section, params, len(rows)) | ready
    if section.packing:
        options["gradient_accumulation_steps"] *= options["per_device_train_batch_size"]
        options["per_device_train_batch_size"] = 1
    settings = SFTConfig(**options)
    data = steps.filled(rows, settings)
    return Trainer(load(), args=settings, train_dataset=data, processing_class=tokenizer)


def check_apart(model: Any, tokenizer: Any) -> None:
    """Two rows of three tokens are to the model packed what they are alone; OPT and Falcon, for two, look at no
    positions, and would read on over the seam.

    Raises ValueError where they are not.
    """
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    first, second = [1, 2, 3], [4, 5, 6]
    collate = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id, padding_free=True)
    batch = collate([{"input_ids": first + second, "labels": first + second, "seq_lengths": [3, 3]}])
    with torch.inference_mode():
        together = model.eval()(**batch, use_cache=False).logits[0, 3:]  # as in training: a cache wants one row
        alone = model(input_ids=torch.tensor([second])).logits[0]
    if not torch.allclose(together, alone, rtol=0.02, atol=0.02 * float(alone.abs().max())):
        told = f"{type(model).__name__} lets rows that are packed see each other"
        raise ValueError(f"{told}; set packing = false, or take another base model")


def learnt(rows: Any) -> dict[str, int]:
    """Of rows that are not packed: their tokens, those among them that are learnt, and the stretches of these."""
    counts: Counter[str] = Counter()
    for chunk in rows.data.column("labels").chunks:
        is_learnt = chunk.flatten().to_numpy() != -100
        begins = is_learnt[1:] & ~is_learnt[:-1]
        counts += Counter(
            tokens=len(is_learnt), tokens_learnt=int(is_learnt.sum()), answers=int(np.count_nonzero(begins))
        )
    return dict(counts)
