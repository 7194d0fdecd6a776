"""Train a causal language model on rows of token ids and labels, one by one or packed; `sft` and `preference_model`
share it.

Packed, as many rows as fit into max_tokens make one (TRL's best fit, longest first), and none sees another: positions
begin again at every seam, and attention stays within them. A packed row counts as one of global_batch_rows, so that a
step has about as many tokens as the next, and an epoch has fewer steps.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from stages.training import harness, steps, tokens

SCHEMA = pa.schema({"input_ids": tokens.IDS, "labels": tokens.IDS})
"""-100 is the label of a token that is not learnt; a row begins with one."""


def packed(rows: Any, section: Any) -> Any:
    """The rows as they are trained on, none of which is over section.max_tokens."""
    from trl import pack_dataset

    return pack_dataset(rows, section.max_tokens, "bfd") if section.packing else rows


def trainer(params: Any, section: Any, rows: Any, tokenizer: Any, load: Callable[[], Any]) -> Any:
    """TRL's SFTTrainer on what `packed` gave. The model is loaded when the settings are there: ZeRO-3 then parts its
    weights as they are read.
    """
    from trl import SFTConfig, SFTTrainer

    class Trainer(steps.Ordered, SFTTrainer): ...

    # without max_length and with nothing to prepare, or TRL would read all rows again
    ready = {"max_length": None, "padding_free": section.packing, "dataset_kwargs": {"skip_prepare_dataset": True}}
    settings = SFTConfig(**(harness.arguments(section, params, len(rows)) | ready))
    data = steps.filled(rows, settings)
    return Trainer(load(), args=settings, train_dataset=data, processing_class=tokenizer)


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
