"""Train the pairwise preference model: shown a prompt and two answers, the next token says which is better, A or B.

Reads   model: the base model; train: preference pairs
Writes  preference/: a causal language model; curve: one CSV row per optimiser step
Params  preference_model.layers (the first so many blocks; null for all), packing (rows joined up to max_tokens, none
        seeing another), learning_rate, epochs, global_batch_rows (packed ones count as one), warmup_share, max_tokens;
        dtype, seed
Source  RLHF Workflow, arXiv 2405.07863, section 2.2; the loss is on the letter alone, the order of the answers drawn
        for each pair from seed and id
"""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages import chat
from stages.signals import pairwise
from stages.training import harness, steps

DISTRIBUTED = True


def chosen_is_first(seed: int, name: str) -> bool:
    """A fair coin for each pair, the same whatever its place in the file."""
    return hashlib.sha256(f"{seed}:preference_model:{name}".encode()).digest()[0] % 2 == 0


def tokenize(tokenizer: Any, row: dict, letters: tuple[int, int], seed: int) -> dict[str, list[int]]:
    """input_ids and labels of one comparison, -100 on all but the letter."""
    first = chosen_is_first(seed, row["id"])
    answers = [row[side][0]["content"] for side in ("chosen", "rejected")]
    question = chat.prompt_ids(tokenizer, pairwise.instruction(row["prompt"], *answers[:: 1 if first else -1]))
    letter = letters[0 if first else 1]
    return {"input_ids": [*question, letter], "labels": [-100] * len(question) + [letter]}


def main(params: Any, model: Path, train: Path, *, preference: Path, curve: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer, pack_dataset

    class Trainer(steps.Ordered, SFTTrainer): ...

    tokenizer, section = chat.load_tokenizer(model), params.preference_model
    letters = pairwise.letters(tokenizer)
    rows = [tokenize(tokenizer, row, letters, params.seed) for row in pq.read_table(train).to_pylist()]
    short = [row for row in rows if len(row["input_ids"]) <= section.max_tokens]
    if not short:
        raise ValueError(
            f"no comparison of {len(rows)} fits preference_model.max_tokens = {section.max_tokens}; raise it"
        )
    data = Dataset.from_list(short)
    data = pack_dataset(data, section.max_tokens, "bfd") if section.packing else data
    used = steps.shared(len(data), section, params.runtime)
    ready = {"max_length": None, "padding_free": section.packing, "dataset_kwargs": {"skip_prepare_dataset": True}}
    settings = SFTConfig(**(harness.arguments(section, params, used) | ready))
    network = harness.first_layers(AutoModelForCausalLM, model, section.layers, "preference_model.layers")
    trainer = Trainer(network, args=settings, train_dataset=data, processing_class=tokenizer)
    harness.train(trainer)
    harness.save(trainer, tokenizer, preference, params.dtype)
    harness.write_curve(trainer, curve)
    last = [step for step in trainer.state.log_history if "loss" in step][-1]
    out = f"{len(rows) - len(short)} over {section.max_tokens} tokens, {len(data) - used} rows that the processes cannot share"
    print(f"preference_model: {len(short)} pairs in {len(data)} rows ({out}), last loss {last['loss']:.3f}")
