"""Train the pairwise preference model: shown a prompt and two answers, the next token says which is better, A or B.

Reads   model: the base model; train: preference pairs
Writes  preference/: a causal language model; curve: one CSV row per optimiser step; metrics: pairs in, trained on and
        left out by name, the rows that they are packed into, [step, loss] of every step
Params  preference_model.layers (the first so many blocks; null for all), packing (rows joined up to max_tokens, none
        seeing another), learning_rate, epochs, global_batch_rows (packed ones count as one), warmup_share, max_tokens;
        dtype, seed
Source  RLHF Workflow, arXiv 2405.07863, section 2.2; the loss is on the letter alone, the order of the answers drawn
        for each pair from seed and id
"""

import hashlib
import json
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
    chosen, rejected = row["chosen"][0]["content"], row["rejected"][0]["content"]
    if chosen_is_first(seed, row["id"]):
        letter, shown = letters[0], (chosen, rejected)
    else:
        letter, shown = letters[1], (rejected, chosen)
    question = chat.prompt_ids(tokenizer, pairwise.instruction(row["prompt"], *shown))
    return {"input_ids": [*question, letter], "labels": [-100] * len(question) + [letter]}


def main(params: Any, model: Path, train: Path, *, preference: Path, curve: Path, metrics: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer, pack_dataset

    class Trainer(steps.Ordered, SFTTrainer): ...

    tokenizer, section = chat.load_tokenizer(model), params.preference_model
    letters = pairwise.letters(tokenizer)
    rows = [tokenize(tokenizer, row, letters, params.seed) for row in pq.read_table(train).to_pylist()]
    short = [row for row in rows if len(row["input_ids"]) <= section.max_tokens]
    if not short:
        limit = f"preference_model.max_tokens = {section.max_tokens}"
        raise ValueError(f"no comparison of {len(rows)} fits {limit}; raise it")
    data = Dataset.from_list(short)
    packed = pack_dataset(data, section.max_tokens, "bfd") if section.packing else data
    ready = {"max_length": None, "padding_free": section.packing, "dataset_kwargs": {"skip_prepare_dataset": True}}
    settings = SFTConfig(**(harness.arguments(section, params, len(packed)) | ready))
    network = harness.first_layers(AutoModelForCausalLM, model, section.layers, "preference_model.layers")
    filled = steps.filled(packed, settings)
    trainer = Trainer(network, args=settings, train_dataset=filled, processing_class=tokenizer)
    harness.train(trainer, params.dtype)
    harness.save(trainer, tokenizer, preference, params.dtype)
    harness.write_curve(trainer, curve)
    drops, losses = {"over_max_tokens": len(rows) - len(short)}, harness.losses(trainer)
    facts = harness.account(len(short), drops, losses) | {"packed_rows": len(packed)}
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    last = losses[-1][1]
    print(f"preference_model: {len(short)} pairs in {len(packed)} rows, left out {drops}, last loss {last:.3f}")
