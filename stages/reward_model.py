"""Train the Bradley-Terry reward model: loss -log sigmoid(r(x, chosen) - r(x, rejected)), no margin.

Reads   model: the base model; train: preference pairs
Writes  reward/: AutoModelForSequenceClassification with one label; curve: one CSV row per optimiser step
Params  reward_model.layers (the first so many blocks; null for all), learning_rate, epochs, global_batch_rows, warmup_share, max_tokens; dtype, seed
Source  RLHF Workflow, arXiv 2405.07863, section 2.1; Bradley and Terry 1952
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages import chat, training

DISTRIBUTED = True


def tokenize(tokenizer: Any, row: dict) -> dict[str, list[int]]:
    """chosen_ids and rejected_ids, each the whole conversation."""
    prompt = chat.prompt_ids(tokenizer, row["prompt"])
    return {f"{side}_ids": prompt + chat.completion_ids(tokenizer, row[side][0]["content"], row[f"{side}_finished"]) for side in ("chosen", "rejected")}


def load(model: Path, layers: int | None) -> Any:
    """The base model with a scalar head, cut to its first `layers` blocks."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(model, num_labels=1, local_files_only=True)
    if layers and layers > config.num_hidden_layers:
        raise ValueError(f"params.yaml: reward_model.layers = {layers}, the model has {config.num_hidden_layers}; lower it or set null")
    config.num_hidden_layers = layers or config.num_hidden_layers
    return AutoModelForSequenceClassification.from_pretrained(model, config=config, **training.model_options())


def main(params: Any, model: Path, train: Path, *, reward: Path, curve: Path) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    tokenizer = chat.load_tokenizer(model)
    rows = [tokenize(tokenizer, row) for row in pq.read_table(train).to_pylist()]
    short = [row for row in rows if max(map(len, row.values())) <= params.reward_model.max_tokens]
    if not short:
        raise ValueError(f"no pair of {len(rows)} fits reward_model.max_tokens = {params.reward_model.max_tokens}; raise it")
    settings = RewardConfig(**training.arguments(params.reward_model, params, len(short)))
    network = load(model, params.reward_model.layers)
    trainer = RewardTrainer(network, args=settings, train_dataset=Dataset.from_list(short), processing_class=tokenizer)
    trainer.train()
    training.save(trainer, tokenizer, reward, params.dtype)
    training.write_curve(trainer, curve)
    last = [step for step in trainer.state.log_history if "loss" in step][-1]
    print(f"reward_model: {len(short)} pairs ({len(rows) - len(short)} over {params.reward_model.max_tokens} tokens), last loss {last['loss']:.3f}")
