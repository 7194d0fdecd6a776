"""Train the next policy by DPO, or another of TRL's preference losses, on preference pairs, against the fixed
reference pi_0.

Reads   model: the policy to start from; sampled: the one that made the newest pairs; reference: pi_0, unless the
        iteration names another; history: pairs with the reference's log-probabilities
Writes  policy/: the model folder of pi_{t+1}, with LoRA also policy/adapter, with dpo.half also policy/half, the model
        after half of the steps; curve: one CSV row per optimiser step; metrics: pairs in, trained on and left out by
        name, the digest of the reference, loss, reward accuracy and margin (beta times nats) of the last step, the
        latter two means over its micro-batches, [step, loss] of every step
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
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages import chat
from stages.training import digest, harness, lora, objectives, quantized, tokens

DISTRIBUTED = True

HALF = "half"
"""Where in a policy's folder the half-trained one lies: loaders of the folder do not look there."""

AGAIN = "run reference again"


SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt_ids", tokens.IDS),
        ("chosen_ids", tokens.IDS),
        ("rejected_ids", tokens.IDS),
        ("ref_chosen_logps", pa.float64()),
        ("ref_rejected_logps", pa.float64()),
        ("length", pa.int32()),  # tokens of prompt and longer side
    ]
)
COLUMNS = ["id", "prompt", "chosen", "chosen_finished", "rejected", "rejected_finished", "made_in"]
COLUMNS += ["ref_chosen_logps", "ref_rejected_logps", "ref_model", "ref_tokens"]


def check_reference(row: dict, pair: objectives.Pair, reference: Path, wanted: str) -> None:
    """Raise ValueError for a pair whose log-probabilities are by another model than the reference, whose digest is
    `wanted`, or of other tokens.
    """
    if row["ref_model"] != wanted:
        told = f"by a model with digest {row['ref_model']}, {reference} has {wanted}"
        raise ValueError(f"pair {row['id']}: its log-probabilities are {told}; {AGAIN}")
    if row["ref_tokens"] != digest.tokens(pair):
        told = "of another prompt or other answers, or of a template that wrote other tokens"
        raise ValueError(f"pair {row['id']} of {row['made_in']}: its log-probabilities are {told}; {AGAIN}")


def check_vocabulary(model: Path, reference: Path) -> Any:
    """The tokenizer of both. Raises ValueError where they differ: a log-ratio of different tokens means nothing."""
    mine, its = chat.load_tokenizer(model), chat.load_tokenizer(reference)
    other = ""
    if mine.get_vocab() != its.get_vocab():
        other = f"vocabulary ({len(mine)} tokens against {len(its)})"
    elif mine.chat_template != its.chat_template:
        other = "chat template"
    if other:
        remedy = "start from a checkpoint that was trained from the reference"
        raise ValueError(f"{model} has another {other} than the reference {reference}; {remedy}")
    return mine


def tokenize(tokenizer: Any, row: dict) -> objectives.Pair:
    """A pair as the trainers take it."""
    kept = {name: row[name] for name in ("id", "ref_chosen_logps", "ref_rejected_logps")}
    return kept | chat.pair_ids(tokenizer, row)


def sort(tokenizer: Any, row: dict, reference: Path, wanted: str, longest: int) -> tuple[str, dict]:
    """A pair, tokenized, and whether it needs no cutting.

    Raises ValueError for one that is not of the reference, or whose prompt leaves no room for any answer.
    """
    pair = tokenize(tokenizer, row)
    check_reference(row, pair, reference, wanted)
    length, asked = objectives.length(pair), len(pair["prompt_ids"])
    if asked >= longest:
        rule = f"its prompt alone has {asked} tokens, dpo.max_tokens = {longest} leaves no room for an answer"
        raise ValueError(f"pair {pair['id']}: {rule}; raise dpo.max_tokens or shorten the prompt")
    return ("over_max_tokens", {}) if length > longest else ("train", pair | {"length": length})


def fitting(model: Path, history: Path, reference: Path, wanted: str, max_tokens: int) -> tuple[Any, int]:
    """The pairs to train on, in order, and how many are too long. Raises ValueError where all are."""
    rule = partial(sort, reference=reference, wanted=wanted, longest=max_tokens)
    found = tokens.of_file(history, COLUMNS, model, rule, {"train": SCHEMA})
    pairs, long = found.sets["train"], found.drops["over_max_tokens"]
    if long and not len(pairs):
        raise ValueError(f"no pair of {long} fits dpo.max_tokens = {max_tokens}; raise it")
    return pairs, long


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


def account(used: int, long: int, reference: str, log: list[dict], curve: list[list[float]]) -> dict[str, Any]:
    """The stage's metrics: so many pairs trained on, so many too long; `log` is the trainer's, one entry per step."""
    facts = harness.account(used, {"over_max_tokens": long}, curve) | {"reference": reference}
    last = log[-1] if log else {}
    names = {"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}
    return facts | {name: round(last[key], 4) for key, name in names.items() if key in last}


def train(params: Any, model: Path, reference: Path, pairs: Any, tokenizer: Any) -> Any:
    """The trainer, when it has trained `model` on the pairs, and the folder of the half-trained policy or None."""
    section, dtype = params.dpo, params.dtype
    mine, its = (partial(load, folder, dtype, section.quantized) for folder in (model, reference))
    held = its if objectives.reads_reference_model(section) else None
    arguments = harness.arguments(section, params, len(pairs))
    adapter = lora.config(section.lora_rank, section.lora_alpha) if section.lora_rank else None
    trainer = objectives.trainer(section, arguments, pairs, tokenizer, mine, held, adapter)
    half = keep_half(trainer, tokenizer, dtype) if section.half else None
    harness.train(trainer, params, objectives.rows_of(section, pairs, params.seed))
    return trainer, half


def main(
    params: Any, model: Path, sampled: Path, reference: Path, history: Path, *, policy: Path, curve: Path, metrics: Path
) -> None:
    section, tokenizer = params.dpo, check_vocabulary(model, reference)
    of = digest.model(reference, section.quantized)
    pairs, long = fitting(model, history, reference, of, section.max_tokens)
    if not len(pairs):
        for folder in (policy, policy / HALF) if section.half else (policy,):
            harness.untrained(sampled, folder, curve)
        metrics.write_text(json.dumps(account(0, 0, of, [], []), indent=2) + "\n", encoding="utf-8")
        return print(f"dpo: no new pairs, the run was stopped; {policy.name} is {sampled} as it was")
    objectives.check_layout(section, params.runtime, len(pairs))
    trainer, half = train(params, model, reference, pairs, tokenizer)
    if section.lora_rank:
        lora.save(trainer, tokenizer, model, policy, params.dtype)
    else:
        harness.save(trainer, tokenizer, policy, params.dtype)
    if half and trainer.is_world_process_zero():
        shutil.copytree(half, policy / HALF)
    harness.write_curve(trainer, curve)
    log = [step for step in trainer.state.log_history if "loss" in step]
    facts = account(len(pairs), long, of, log, harness.losses(trainer))
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    fell = f"loss {log[0]['loss']:.3f} -> {log[-1]['loss']:.3f}"
    told = f"{len(pairs)} of {len(pairs) + long} pairs of at most {section.max_tokens} tokens, {len(log)} steps"
    print(f"dpo: {told}, {fell}, reference {reference} ({of[:8]})")
