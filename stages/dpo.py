"""Train the next policy by DPO on preference pairs, against the fixed reference pi_0.

Reads   model: the policy to start from (pi_t); history: pairs; reference: log pi_0 of the pairs
Writes  policy/: the model folder of pi_{t+1}; curve: one CSV row per optimiser step
Params  dpo.loss, beta, label_smoothing, learning_rate, epochs, global_batch_rows, warmup_share, max_tokens; dtype, seed
Source  Rafailov et al. 2023, equation 7; RLHF Workflow, arXiv 2405.07863, Algorithm 2, line 6

The reference's log-probabilities come in with the rows, so that no second model is held.
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages import chat, training

DISTRIBUTED = True


def tokenize(tokenizer: Any, row: dict) -> dict[str, Any]:
    """prompt_ids, chosen_ids, rejected_ids as TRL's collator takes them."""
    sides = {f"{side}_ids": chat.completion_ids(tokenizer, row[side][0]["content"], row[f"{side}_finished"]) for side in ("chosen", "rejected")}
    return {"prompt_ids": chat.prompt_ids(tokenizer, row["prompt"]), **sides}


def join(pairs: list[dict], reference: list[dict]) -> list[dict]:
    """Pairs with their reference log-probabilities, by id and iteration. Raises ValueError unless each pair has exactly one."""
    known = {(row["id"], row["made_in"]): row for row in reference}
    lost = [row["id"] for row in pairs if (row["id"], row["made_in"]) not in known]
    if lost or len(known) != len(pairs):
        raise ValueError(f"{len(pairs)} pairs, {len(known)} reference rows, {len(lost)} pairs without ({lost[:1]}); run reference again")
    return [{**row, **known[row["id"], row["made_in"]]} for row in pairs]


def fits(row: dict, max_tokens: int) -> bool:
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) <= max_tokens


def trainer_class() -> type:
    """TRL's DPOTrainer, told that its rows come tokenized and with the reference's log-probabilities."""
    from trl import DPOTrainer

    class Trainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    return Trainer


def main(params: Any, model: Path, history: Path, reference: Path, *, policy: Path, curve: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig

    tokenizer = chat.load_tokenizer(model)
    pairs = join(pq.read_table(history).to_pylist(), pq.read_table(reference).to_pylist())
    names = ("ref_chosen_logps", "ref_rejected_logps")
    rows = [tokenize(tokenizer, row) | {name: row[name] for name in names} for row in pairs]
    short = [row for row in rows if fits(row, params.dpo.max_tokens)]
    if not short:
        raise ValueError(f"no pair of {len(rows)} fits dpo.max_tokens = {params.dpo.max_tokens}; raise it")
    settings = DPOConfig(
        **training.arguments(params.dpo, params, len(short)),
        loss_type=[params.dpo.loss], beta=params.dpo.beta, label_smoothing=params.dpo.label_smoothing, precompute_ref_log_probs=True,
    )  # fmt: skip
    network = AutoModelForCausalLM.from_pretrained(model, **training.model_options())
    trainer = trainer_class()(network, args=settings, train_dataset=Dataset.from_list(short), processing_class=tokenizer)
    trainer.train()
    training.save(trainer, tokenizer, policy, params.dtype)
    training.write_curve(trainer, curve)
    steps = [step for step in trainer.state.log_history if "loss" in step]
    print(f"dpo: {len(short)} pairs ({len(rows) - len(short)} over {params.dpo.max_tokens} tokens), loss {steps[0]['loss']:.3f} -> {steps[-1]['loss']:.3f}")
