"""Train the next policy by DPO, or another of TRL's preference losses, on preference pairs, against the fixed
reference pi_0.

Reads   model: the policy to start from; sampled: the one that made the newest pairs; reference: pi_0, unless the
        iteration names another; history: pairs with the reference's log-probabilities
Writes  policy/: the model folder of pi_{t+1}, with LoRA also policy/adapter, with dpo.half also policy/half, the model
        after half of the steps; curve: one CSV row per optimiser step; metrics: pairs in, out and dropped, the digest
        of the reference, loss, reward accuracy and margin (beta times nats) of the last step
Params  dpo.loss and loss_weights (names of TRL's; sft adds -log pi(chosen) per token, the optimistic term), beta,
        label_smoothing, f_divergence, f_alpha, ld_alpha, discopop_tau, simpo_gamma; dpo.lora_rank (0 trains all
        weights), lora_alpha, quantized; dpo.half; dpo.learning_rate, epochs, global_batch_rows (pairs), warmup_share,
        max_tokens (of prompt and longer side); dtype, seed
Source  Rafailov et al. 2023, equation 7; RLHF Workflow, arXiv 2405.07863, Algorithm 2, line 6; the other losses:
        stages/training/objectives.py

Each pair's log-probabilities must be of this pair and by this reference, by hash. No pairs at all (a stopped run)
leave the sampled policy as it is, even where training would have begun with pi_0: what broke a rule then breaks it
again before the next iteration, and the run stays stopped.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages import chat
from stages.training import digest, harness, lora, objectives, quantized, steps

DISTRIBUTED = True

HALF = "half"
"""Where in a policy's folder the half-trained one lies: loaders of the folder do not look there."""


def check_reference(pairs: list[dict], reference: Path, in_4_bits: bool) -> str:
    """The digest of the reference. Raises ValueError for a pair whose log-probabilities are by another model or of
    other texts.
    """
    wanted = digest.model(reference, in_4_bits)
    for row in pairs:
        if row["ref_model"] != wanted:
            raise ValueError(
                f"pair {row['id']}: its log-probabilities are by a model with digest {row['ref_model']}, {reference} has {wanted}; run reference again"
            )
        if row["ref_texts"] != digest.pair(row):
            raise ValueError(
                f"pair {row['id']} of {row['made_in']}: its log-probabilities are of another prompt or other answers; run reference again"
            )
    return wanted


def check_vocabulary(model: Path, reference: Path) -> Any:
    """The tokenizer of both. Raises ValueError where they differ: a log-ratio of different tokens means nothing."""
    mine, its = chat.load_tokenizer(model), chat.load_tokenizer(reference)
    if mine.get_vocab() != its.get_vocab() or mine.chat_template != its.chat_template:
        what = (
            f"vocabulary ({len(mine)} tokens against {len(its)})"
            if mine.get_vocab() != its.get_vocab()
            else "chat template"
        )
        raise ValueError(
            f"{model} has another {what} than the reference {reference}; start from a checkpoint that was trained from the reference"
        )
    return mine


def tokenize(tokenizer: Any, row: dict) -> objectives.Pair:
    """A pair as the trainers take it."""
    sides = {
        f"{side}_ids": chat.completion_ids(tokenizer, row[side][0]["content"], row[f"{side}_finished"])
        for side in ("chosen", "rejected")
    }
    known = {name: row[name] for name in ("id", "ref_chosen_logps", "ref_rejected_logps")}
    return {**known, "prompt_ids": chat.prompt_ids(tokenizer, row["prompt"]), **sides}


def fitting(pairs: list[objectives.Pair], max_tokens: int) -> list[objectives.Pair]:
    """The pairs that need no cutting. Raises ValueError for a prompt that leaves no room for any answer, or where no
    pair is left.
    """
    for pair in pairs:
        if len(pair["prompt_ids"]) >= max_tokens:
            rule = f"its prompt alone has {len(pair['prompt_ids'])} tokens, dpo.max_tokens = {max_tokens} leaves no room for an answer"
            raise ValueError(f"pair {pair['id']}: {rule}; raise dpo.max_tokens or shorten the prompt")
    short = [pair for pair in pairs if objectives.length(pair) <= max_tokens]
    if not short:
        raise ValueError(f"no pair of {len(pairs)} fits dpo.max_tokens = {max_tokens}; raise it")
    return short


def load(model: Path, dtype: str, in_4_bits: bool) -> Any:
    """A model in float32, or in 4 bits under an adapter."""
    from transformers import AutoModelForCausalLM

    options = harness.model_options() | (quantized.options(dtype) if in_4_bits else {})
    return AutoModelForCausalLM.from_pretrained(model, **options)


def keep_half(trainer: Any, tokenizer: Any, dtype: str) -> Path:
    """Have the policy saved after half of its steps too; beside the checkpoints, so that a run which is killed later
    still has it. Returns the folder.
    """
    from transformers import TrainerCallback

    folder = Path(trainer.args.output_dir) / HALF

    class Half(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == -(-state.max_steps // 2):
                harness.save(trainer, tokenizer, folder, dtype)

    trainer.add_callback(Half())
    return folder


def keep(model: Path, folder: Path) -> None:
    """The policy as it is, without the half-trained one beside it; every process does it."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns(HALF), dirs_exist_ok=True)


def account(pairs: int, short: int, used: int, reference: str, log: list[dict]) -> dict[str, Any]:
    """The stage's metrics: of so many pairs, those short enough, those of them used; `log` is the trainer's, one entry
    per step.
    """
    last = log[-1] if log else {}
    told = {
        name: round(last[key], 4)
        for name, key in (("loss", "loss"), ("accuracy", "rewards/accuracies"), ("margin", "rewards/margins"))
        if key in last
    }
    drops = {"over_max_tokens": pairs - short, "uneven": short - used}
    return {"rows_in": pairs, "rows_out": used, "drops": drops, "steps": len(log), "reference": reference, **told}


def main(
    params: Any, model: Path, sampled: Path, reference: Path, history: Path, *, policy: Path, curve: Path, metrics: Path
) -> None:
    section, rows = params.dpo, pq.read_table(history).to_pylist()
    of, tokenizer = check_reference(rows, reference, section.quantized), check_vocabulary(model, reference)
    if not rows:
        for folder in (policy, policy / HALF) if section.half else (policy,):
            keep(sampled, folder)
        curve.write_text("step,loss\n")
        metrics.write_text(json.dumps(account(0, 0, 0, of, []), indent=2) + "\n")
        return print(f"dpo: no new pairs, the run was stopped; {policy.name} is {sampled} as it was")
    objectives.check_layout(section, params.runtime)
    pairs = fitting([tokenize(tokenizer, row) for row in rows], section.max_tokens)
    used = steps.shared(len(pairs), section, params.runtime)
    held = load(reference, params.dtype, section.quantized) if objectives.reads_reference_model(section) else None
    arguments = harness.arguments(section, params, used)
    adapter = lora.config(section.lora_rank, section.lora_alpha) if section.lora_rank else None
    trainer = objectives.trainer(
        section, arguments, load(model, params.dtype, section.quantized), pairs, used, tokenizer, held, adapter
    )
    half = keep_half(trainer, tokenizer, params.dtype) if section.half else None
    harness.train(trainer, objectives.rows_of(section, pairs, used, params.seed))
    if section.lora_rank:
        lora.save(trainer, tokenizer, model, policy, params.dtype)
    else:
        harness.save(trainer, tokenizer, policy, params.dtype)
    if half and trainer.is_world_process_zero():
        shutil.copytree(half, policy / HALF)
    harness.write_curve(trainer, curve)
    log = [step for step in trainer.state.log_history if "loss" in step]
    metrics.write_text(json.dumps(account(len(rows), len(pairs), used, of, log), indent=2) + "\n")
    out = f"{len(rows) - len(pairs)} over {section.max_tokens} tokens, {len(pairs) - used} that the processes cannot share"
    print(
        f"dpo: {used} pairs ({out}), {len(log)} steps, loss {log[0]['loss']:.3f} -> {log[-1]['loss']:.3f}, reference {reference} ({of[:8]})"
    )
