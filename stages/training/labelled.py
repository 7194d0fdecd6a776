"""Train a causal language model on rows of token ids and labels, one by one or packed; `sft` and `preference_model`
share it.

Packed, as many rows as fit into max_tokens make one (TRL's best fit, longest first), and none sees another: positions
begin again at every seam, and attention stays within them. A packed row counts as one of global_batch_rows, so that a
step has about as many tokens as the next, and an epoch has fewer steps. Each is a micro-batch of its own: TRL makes one
sequence of a micro-batch, and attention costs the square of its length.
"""

import fcntl
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
    weights as they are read.

    Raises ValueError where rows are packed and the model would let them see each other.
    """
    from trl import SFTConfig, SFTTrainer

    class Trainer(steps.Ordered, SFTTrainer): ...

    # without max_length and with nothing to prepare, or TRL would read all rows again
    ready = {"max_length": None, "padding_free": section.packing, "dataset_kwargs": {"skip_prepare_dataset": True}}
    options = harness.arguments(section, params, len(rows)) | ready
    if section.packing:
        options["gradient_accumulation_steps"] *= options["per_device_train_batch_size"]
        options["per_device_train_batch_size"] = 1
    settings = SFTConfig(**options)
    data = steps.filled(rows, settings)
    made = Trainer(load(), args=settings, train_dataset=data, processing_class=tokenizer)
    if section.packing:
        made.add_callback(before_the_first_step(made.data_collator))
    return made


def before_the_first_step(collate: Callable[[list[Any]], Any]) -> Any:
    """A callback that asks `check_apart` when the model stands as it is trained: its weights on their devices, or, with
    ZeRO-3, in parts that every process gathers with the others.
    """
    from transformers import TrainerCallback

    class Check(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            check_apart(more["model"], collate)

    return Check()


def check_apart(model: Any, collate: Callable[[list[Any]], Any]) -> None:
    """Two rows of three tokens are to the model packed what they are alone; OPT and Falcon, for two, look at no
    positions, and would read on over the seam. The model is left in eval mode; a trainer's step ends that.

    Raises ValueError where they are not.
    """
    import torch

    first, second = [1, 2, 3], [4, 5, 6]
    batch = collate([{"input_ids": first + second, "labels": first + second, "seq_lengths": [3, 3]}])
    model.eval()
    with torch.no_grad():
        together = model(**{name: move(value, model.device) for name, value in batch.items()}).logits[0, 3:]
        alone = model(input_ids=torch.tensor([second], device=model.device)).logits[0]
    if not torch.allclose(together, alone, rtol=0.02, atol=0.02 * float(alone.abs().max())):
        told = f"{type(model).__name__} lets rows that are packed see each other"
        raise ValueError(f"{told}; set packing = false, or take another base model")


def move(value: Any, device: Any) -> Any:
    """A tensor of a batch to the device; what is no tensor, such as a longest length, as it is."""
    return value.to(device) if hasattr(value, "to") else value


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
