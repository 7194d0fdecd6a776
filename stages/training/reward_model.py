"""Train the Bradley-Terry reward model: loss -log sigmoid(r(x, chosen) - r(x, rejected) - margin), and keep the
checkpoint that validates best.

Reads   model: the base model; train: preference pairs; `member`: 0, or the number of an ensemble's further member,
        which has another seed
Writes  reward/: AutoModelForSequenceClassification with one label; curve: one CSV row per optimiser step, one per
        evaluation; metrics: pairs in, trained on and left out by name, of which those to validate are one, [step, loss]
        of every step
Params  reward_model.layers (the first so many blocks; null for all), margin (times the pair's own margin, 0 for none),
        centring (weight of (r(chosen) + r(rejected))^2, Eisenstein et al. 2023), validation_share (of the prompts,
        taken from training), evaluations (in the whole run, 0 for none), learning_rate, epochs, global_batch_rows,
        warmup_share, max_tokens (a pair is left out whole if either side is longer); dtype, seed
Source  RLHF Workflow, arXiv 2405.07863, section 2.1; Bradley and Terry 1952; margin: Llama 2, arXiv 2307.09288,
        equation 2
"""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages import chat
from stages.training import harness, steps, tokens

DISTRIBUTED = True


def validates(row: dict, share: float) -> bool:
    """Whether a pair belongs to validation: by a hash of its prompt, so that no prompt is on both sides."""
    return int.from_bytes(hashlib.sha256(f"validation:{row['prompt']}".encode()).digest()[:4], "big") < share * 2**32


def tokenize(tokenizer: Any, row: dict, margin: float) -> dict[str, Any]:
    """chosen_ids and rejected_ids, each the whole conversation, and the margin that TRL's loss subtracts."""
    ids = chat.pair_ids(tokenizer, row)
    sides: dict[str, Any] = {side: ids["prompt_ids"] + ids[side] for side in ("chosen_ids", "rejected_ids")}
    if margin:
        sides["margin"] = margin * (row["margin"] or 0.0)
    return sides


def sort(tokenizer: Any, row: dict, margin: float, longest: int, held: float) -> tuple[str, dict]:
    """A pair, tokenized, and whether it is to train on, of the share `held` to validate, or over `longest` tokens."""
    pair = tokenize(tokenizer, row, margin)
    if max(len(pair["chosen_ids"]), len(pair["rejected_ids"])) > longest:
        return "over_max_tokens", {}
    return "validation" if validates(row, held) else "train", pair


def parted(model: Path, train: Path, section: Any) -> tokens.Parts:
    """The pairs to train on and those to validate. Raises ValueError where either is wanted and has none."""
    columns = ["prompt", "chosen", "chosen_finished", "rejected", "rejected_finished", "margin"]
    kept = {"chosen_ids": tokens.IDS, "rejected_ids": tokens.IDS}
    schema = pa.schema(kept | {"margin": pa.float64()} if section.margin else kept)
    share = section.validation_share if section.evaluations else 0.0
    rule = partial(sort, margin=section.margin, longest=section.max_tokens, held=share)
    found = tokens.of_file(train, columns, model, rule, {"train": schema, "validation": schema})
    short, held = (len(found.sets[name]) for name in ("train", "validation"))
    if not short or (section.evaluations and not held):
        told = f"{short} pairs to train on and {held} to validate, of {short + held + found.drops.total()}"
        limit = f"reward_model.max_tokens = {section.max_tokens}"
        remedy = f"raise {limit} or reward_model.validation_share = {section.validation_share}"
        raise ValueError(f"{told}; {remedy}")
    return found


def selection(section: Any, rows: int, runtime: Any) -> dict[str, Any]:
    """TrainingArguments that evaluate so many times, at equal distances, and come back to the checkpoint with the
    lowest validation loss.

    Several processes validate row by row: accelerate would fill a batch up with rows that are in it already.
    """
    steps = -(-rows // section.global_batch_rows) * section.epochs
    every = max(1, steps // section.evaluations)
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
    when = {"eval_strategy": "steps", "eval_steps": every, "save_strategy": "steps", "save_steps": every}
    micro = min(runtime.micro_batch_rows, section.global_batch_rows)
    return best | when | {"per_device_eval_batch_size": micro if runtime.processes == 1 else 1}


def best_of(trainer: Any) -> str:
    """What to say of the checkpoint that was kept; nothing where none was validated."""
    state = trainer.state
    if state.best_metric is None:
        return ""
    return f", best validation loss {state.best_metric:.3f} at step {state.best_global_step}"


def main(params: Any, model: Path, train: Path, member: int, *, reward: Path, curve: Path, metrics: Path) -> None:
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    class Trainer(steps.Weighed, RewardTrainer): ...

    tokenizer, section = chat.load_tokenizer(model), params.reward_model
    sets, drops = parted(model, train, section)
    short, held = sets["train"], sets["validation"]
    options = harness.arguments(section, params, len(short))
    options |= {"seed": params.seed + member, "center_rewards_coefficient": section.centring or None}
    options |= selection(section, len(short), params.runtime) if len(held) else {}
    options["max_length"] = None  # or TRL would read all rows again, to see that they are short enough
    settings = RewardConfig(**options)
    harness.seed(params.seed + member)
    network = harness.first_layers(
        AutoModelForSequenceClassification, model, section.layers, "reward_model.layers", num_labels=1
    )
    trainer = Trainer(
        network,
        args=settings,
        processing_class=tokenizer,
        train_dataset=steps.filled(short, settings),
        eval_dataset=held if len(held) else None,
    )
    harness.train(trainer, params)
    harness.save(trainer, tokenizer, reward, params.dtype)
    harness.write_curve(trainer, curve)
    drops = {"over_max_tokens": drops["over_max_tokens"], "validation": len(held)}
    facts = harness.account(len(short), drops, harness.losses(trainer))
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    last = facts["curve"][-1][1]
    print(f"reward_model: {len(short)} pairs, left out {drops}, last loss {last:.3f}{best_of(trainer)}")
