"""Train the next policy by DPO, or another of TRL's preference losses, on preference pairs, against the fixed reference pi_0.

Reads   model: the policy to start from; reference: pi_0, unless the iteration names another; history: pairs with its log-probabilities
Writes  policy/: the model folder of pi_{t+1}, with LoRA also policy/adapter; curve: one CSV row per optimiser step; metrics: pairs in, out and dropped,
        the digest of the reference, loss, reward accuracy and margin (beta times nats) of the last step
Params  dpo.loss and loss_weights (names of TRL's; sft adds -log pi(chosen) per token, the optimistic term), beta, label_smoothing, f_divergence, f_alpha,
        ld_alpha, discopop_tau, simpo_gamma; dpo.lora_rank (0 trains all weights), lora_alpha, quantized; dpo.learning_rate, epochs, global_batch_rows
        (pairs), warmup_share, max_tokens (of prompt and longer side); dtype, seed
Source  Rafailov et al. 2023, equation 7; RLHF Workflow, arXiv 2405.07863, Algorithm 2, line 6; the other losses: stages/objectives.py

Each pair's log-probabilities must be of this pair and by this reference, by hash. No pairs at all (a stopped run) leave the policy as it is.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages import chat, digest, lora, objectives, training

DISTRIBUTED = True


def check_reference(pairs: list[dict], reference: Path) -> str:
    """The digest of the reference. Raises ValueError for a pair whose log-probabilities are by another model or of other texts."""
    wanted = digest.model(reference)
    for row in pairs:
        if row["ref_model"] != wanted:
            raise ValueError(
                f"pair {row['id']}: its log-probabilities are by a model with digest {row['ref_model']}, {reference} has {wanted}; run reference again"
            )
        if row["ref_texts"] != digest.pair(row):
            raise ValueError(f"pair {row['id']} of {row['made_in']}: its log-probabilities are of another prompt or other answers; run reference again")
    return wanted


def check_vocabulary(model: Path, reference: Path) -> Any:
    """The tokenizer of both. Raises ValueError where they differ: a log-ratio of different tokens means nothing."""
    mine, its = chat.load_tokenizer(model), chat.load_tokenizer(reference)
    if mine.get_vocab() != its.get_vocab() or mine.chat_template != its.chat_template:
        what = f"vocabulary ({len(mine)} tokens against {len(its)})" if mine.get_vocab() != its.get_vocab() else "chat template"
        raise ValueError(f"{model} has another {what} than the reference {reference}; start from a checkpoint that was trained from the reference")
    return mine


def tokenize(tokenizer: Any, row: dict) -> objectives.Pair:
    """A pair as the trainers take it."""
    sides = {f"{side}_ids": chat.completion_ids(tokenizer, row[side][0]["content"], row[f"{side}_finished"]) for side in ("chosen", "rejected")}
    known = {name: row[name] for name in ("id", "ref_chosen_logps", "ref_rejected_logps")}
    return {**known, "prompt_ids": chat.prompt_ids(tokenizer, row["prompt"]), **sides}


def fitting(pairs: list[objectives.Pair], max_tokens: int) -> list[objectives.Pair]:
    """The pairs that need no cutting. Raises ValueError for a prompt that leaves no room for any answer, or where no pair is left."""
    for pair in pairs:
        if len(pair["prompt_ids"]) >= max_tokens:
            rule = f"its prompt alone has {len(pair['prompt_ids'])} tokens, dpo.max_tokens = {max_tokens} leaves no room for an answer"
            raise ValueError(f"pair {pair['id']}: {rule}; raise dpo.max_tokens or shorten the prompt")
    short = [pair for pair in pairs if objectives.length(pair) <= max_tokens]
    if not short:
        raise ValueError(f"no pair of {len(pairs)} fits dpo.max_tokens = {max_tokens}; raise it")
    return short


def load(model: Path, section: Any, dtype: str) -> Any:
    """The policy to train: float32, or in 4 bits under an adapter."""
    from transformers import AutoModelForCausalLM

    options = training.model_options() | (lora.quantized(dtype) if section.quantized else {})
    return AutoModelForCausalLM.from_pretrained(model, **options)


def account(pairs: int, kept: int, reference: str, log: list[dict]) -> dict[str, Any]:
    """The stage's metrics; `log` is the trainer's, one entry per step."""
    last = log[-1] if log else {}
    told = {name: round(last[key], 4) for name, key in (("loss", "loss"), ("accuracy", "rewards/accuracies"), ("margin", "rewards/margins")) if key in last}
    return {"rows_in": pairs, "rows_out": kept, "drops": {"over_max_tokens": pairs - kept}, "steps": len(log), "reference": reference, **told}


def main(params: Any, model: Path, reference: Path, history: Path, *, policy: Path, curve: Path, metrics: Path) -> None:
    section, rows = params.dpo, pq.read_table(history).to_pylist()
    of, tokenizer = check_reference(rows, reference), check_vocabulary(model, reference)
    if not rows:
        shutil.copytree(model, policy, dirs_exist_ok=True)  # every process does it
        curve.write_text("step,loss\n")
        metrics.write_text(json.dumps(account(0, 0, of, []), indent=2) + "\n")
        return print(f"dpo: no new pairs, the run was stopped; {policy.name} is {model} as it was")
    objectives.check_layout(section, params.runtime)
    pairs = fitting([tokenize(tokenizer, row) for row in rows], section.max_tokens)
    held = load(reference, section, params.dtype) if objectives.reads_reference_model(section) else None
    arguments = training.arguments(section, params, len(pairs))
    adapter = lora.config(section.lora_rank, section.lora_alpha) if section.lora_rank else None
    trainer = objectives.trainer(section, arguments, load(model, section, params.dtype), pairs, tokenizer, held, adapter)
    training.train(trainer, objectives.rows_of(section, pairs, params.seed))
    if section.lora_rank:
        lora.save(trainer, tokenizer, model, policy, params.dtype)
    else:
        training.save(trainer, tokenizer, policy, params.dtype)
    training.write_curve(trainer, curve)
    steps = [step for step in trainer.state.log_history if "loss" in step]
    metrics.write_text(json.dumps(account(len(rows), len(pairs), of, steps), indent=2) + "\n")
    told = f"{len(pairs)} pairs ({len(rows) - len(pairs)} over {section.max_tokens} tokens), {len(steps)} steps"
    print(f"dpo: {told}, loss {steps[0]['loss']:.3f} -> {steps[-1]['loss']:.3f}, reference {reference} ({of[:8]})")
