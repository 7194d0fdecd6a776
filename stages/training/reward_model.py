"""Train the Bradley-Terry reward model: loss -log sigmoid(r(x, chosen) - r(x, rejected) - margin), and keep the
checkpoint that validates best.

Reads   model: the base model; train: preference pairs; `member`: 0, or the number of an ensemble's further member,
        which has another seed
Writes  reward/: AutoModelForSequenceClassification with one label; curve: one CSV row per optimiser step, one per
        evaluation
Params  reward_model.layers (the first so many blocks; null for all), margin (times the pair's own margin, 0 for none),
        centring (weight of (r(chosen) + r(rejected))^2, Eisenstein et al. 2023), validation_share (of the prompts,
        taken from training), evaluations (in the whole run, 0 for none), learning_rate, epochs, global_batch_rows,
        warmup_share, max_tokens (a pair is left out whole if either side is longer); dtype, seed
Source  RLHF Workflow, arXiv 2405.07863, section 2.1; Bradley and Terry 1952; margin: Llama 2, arXiv 2307.09288,
        equation 2
"""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages import chat
from stages.training import harness, steps

DISTRIBUTED = True


def validates(row: dict, share: float) -> bool:
    """Whether a pair belongs to validation: by a hash of its prompt, so that no prompt is on both sides."""
    return int.from_bytes(hashlib.sha256(f"validation:{row['prompt']}".encode()).digest()[:4], "big") < share * 2**32


def tokenize(tokenizer: Any, row: dict, margin: float) -> dict[str, Any]:
    """chosen_ids and rejected_ids, each the whole conversation, and the margin that TRL's loss subtracts."""
    prompt = chat.prompt_ids(tokenizer, row["prompt"])
    sides = {
        f"{side}_ids": prompt + chat.completion_ids(tokenizer, row[side][0]["content"], row[f"{side}_finished"])
        for side in ("chosen", "rejected")
    }
    return sides | ({"margin": margin * (row["margin"] or 0.0)} if margin else {})


def selection(section: Any, rows: int, micro: int) -> dict[str, Any]:
    """TrainingArguments that evaluate so many times, at equal distances, and come back to the checkpoint with the
    lowest validation loss.
    """
    steps = -(-rows // section.global_batch_rows) * section.epochs
    every = max(1, steps // section.evaluations)
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    when = {"eval_strategy": "steps", "eval_steps": every, "save_strategy": "steps", "save_steps": every}
    return best | when | {"per_device_eval_batch_size": micro}


def main(params: Any, model: Path, train: Path, member: int, *, reward: Path, curve: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    class Trainer(steps.Weighed, RewardTrainer): ...

    tokenizer, section = chat.load_tokenizer(model), params.reward_model
    rows = pq.read_table(train).to_pylist()
    sides: tuple[list[dict], list[dict]] = ([], [])
    for row in rows:
        ids = tokenize(tokenizer, row, section.margin)
        if max(len(ids["chosen_ids"]), len(ids["rejected_ids"])) <= section.max_tokens:
            sides[section.evaluations > 0 and validates(row, section.validation_share)].append(ids)
    short, held = sides
    if not short or (section.evaluations and not held):
        told = f"{len(short)} pairs to train on and {len(held)} to validate, of {len(rows)}"
        raise ValueError(
            f"{told}; raise reward_model.max_tokens = {section.max_tokens} or reward_model.validation_share = {section.validation_share}"
        )
    used = steps.shared(len(short), section, params.runtime)
    options = harness.arguments(section, params, used) | {
        "seed": params.seed + member,
        "center_rewards_coefficient": section.centring or None,
    }
    options |= selection(section, used, options["per_device_train_batch_size"]) if held else {}
    harness.seed(params.seed + member)
    network = harness.first_layers(
        AutoModelForSequenceClassification, model, section.layers, "reward_model.layers", num_labels=1
    )
    validated = (
        held[: steps.shared(len(held), section, params.runtime)] if held else []
    )  # or accelerate would fill up with some of them again
    data = {
        "train_dataset": Dataset.from_list(short),
        "eval_dataset": Dataset.from_list(validated) if validated else None,
    }
    trainer = Trainer(network, args=RewardConfig(**options), processing_class=tokenizer, **data)
    harness.train(trainer)
    harness.save(trainer, tokenizer, reward, params.dtype)
    harness.write_curve(trainer, curve)
    last = [step for step in trainer.state.log_history if "loss" in step][-1]
    best = (
        f", best validation loss {trainer.state.best_metric:.3f} at step {trainer.state.best_global_step}"
        if held
        else ""
    )
    apart = len(rows) - len(short) - len(held), len(short) - used + len(held) - len(validated)
    out = f"{apart[0]} over {section.max_tokens} tokens, {apart[1]} that the processes cannot share"
    print(f"reward_model: {used} pairs, {len(validated)} to validate ({out}), last loss {last['loss']:.3f}{best}")
