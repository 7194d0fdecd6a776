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
from functools import partial
from pathlib import Path
from typing import Any

from stages import chat
from stages.signals import pairwise
from stages.training import harness, labelled, tokens

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


def sort(tokenizer: Any, row: dict, seed: int, longest: int) -> tuple[str, dict]:
    """A comparison, tokenized, and whether it is to train on or over `longest` tokens."""
    asked = tokenize(tokenizer, row, pairwise.letters(tokenizer), seed)
    return ("over_max_tokens", {}) if len(asked["input_ids"]) > longest else ("train", asked)


def shown(model: Path, train: Path, section: Any, seed: int) -> tuple[Any, int]:
    """The comparisons to train on, and how many are too long. Raises ValueError where none is left."""
    rule = partial(sort, seed=seed, longest=section.max_tokens)
    columns, parts = ["id", "prompt", "chosen", "rejected"], {"train": labelled.SCHEMA}
    found = tokens.of_file(train, columns, model, rule, parts)
    long = found.drops["over_max_tokens"]
    if not len(found.sets["train"]):
        limit = f"preference_model.max_tokens = {section.max_tokens}"
        raise ValueError(f"no comparison of {long} fits {limit}; raise it")
    return found.sets["train"], long


def main(params: Any, model: Path, train: Path, *, preference: Path, curve: Path, metrics: Path) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer, section = chat.load_tokenizer(model), params.preference_model
    short, long = shown(model, train, section, params.seed)
    packed = labelled.packed(short, section)
    load = partial(harness.first_layers, AutoModelForCausalLM, model, section.layers, "preference_model.layers")
    trainer = labelled.trainer(params, section, packed, tokenizer, load)
    harness.train(trainer, params)
    harness.save(trainer, tokenizer, preference, params.dtype)
    harness.write_curve(trainer, curve)
    drops, losses = {"over_max_tokens": long}, harness.losses(trainer)
    facts = harness.account(len(short), drops, losses) | {"packed_rows": len(packed)}
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    last = losses[-1][1]
    print(f"preference_model: {len(short)} pairs in {len(packed)} rows, left out {drops}, last loss {last:.3f}")
