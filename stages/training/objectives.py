"""Preference losses: the TRL trainer for each, with pairs that come tokenized and with the reference's
log-probabilities.

params.yaml names the losses as TRL does (dpo.loss). TRL's DPOTrainer computes most of them; simpo, cpo and orpo need
no reference and are its CPO and ORPO trainers; kto is its KTOTrainer, which sees each side of a pair alone.
stages/guard/params.py refuses an option that none of the losses named would use.
"""

import os
from collections.abc import Callable
from typing import Any

from stages.training import steps

Pair = dict[str, Any]
"""id, prompt_ids, chosen_ids, rejected_ids (lists of token ids), ref_chosen_logps, ref_rejected_logps (nats)."""


def reads_reference_model(section: Any) -> bool:
    """Whether a loss wants more of the reference than its sums over a pair's sides: KTO's baseline is of mismatched
    pairs, LD-DPO weighs tokens.
    """
    return "kto" in section.loss or section.ld_alpha is not None


def check_layout(section: Any, runtime: Any) -> None:
    """Raise ValueError where a loss that compares rows of one micro-batch would change with the layout."""
    split = section.global_batch_rows > runtime.micro_batch_rows * runtime.processes
    sorts = sorted({"aot", "aot_unpaired"} & set(section.loss))
    rule = (
        "processes x runtime.micro_batch_rows"
        if "kto" in section.loss
        else "processes = 1 and runtime.micro_batch_rows"
    )
    if ("kto" in section.loss and split) or (sorts and (split or runtime.processes > 1)):
        name = sorts[0] if sorts else "kto"
        raise ValueError(
            f"dpo.loss {name} compares the rows of one micro-batch: set runtime.{rule} = dpo.global_batch_rows = {section.global_batch_rows}"
        )


def length(pair: Pair) -> int:
    """Tokens of a pair's longer side: the width of a batch that it decides."""
    return len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))


def rows_of(section: Any, pairs: list[Pair], used: int, seed: int) -> Callable[[int], list[str]]:
    """The ids of the pairs of an optimiser step, counted from 1; KTO goes through its rows in the same order in every
    epoch.
    """
    batch = section.global_batch_rows
    each = -(-used // batch)

    def ids(step: int) -> list[str]:
        epoch, k = divmod(step - 1, each)
        drawn = steps.order([length(p) for p in pairs], used, batch, seed, 0 if "kto" in section.loss else epoch)
        return [pairs[i]["id"] for i in drawn[k * batch : (k + 1) * batch]]

    return ids


def trainer(
    section: Any,
    arguments: dict,
    network: Any,
    pairs: list[Pair],
    used: int,
    tokenizer: Any,
    reference: Any,
    adapter: Any,
) -> Any:
    """The trainer of the losses in `section` on so many of the pairs; `reference` is a model or None, `adapter` a peft
    config or None.
    """
    from datasets import Dataset

    common = {"processing_class": tokenizer, "peft_config": adapter}
    if "kto" in section.loss:
        data = Dataset.from_list(unpaired(pairs, used, section.global_batch_rows, arguments["seed"]))
        return kto(section, arguments)(network, ref_model=reference, train_dataset=data, **common)
    data = Dataset.from_list([pair | {"length": length(pair)} for pair in pairs])
    if {"simpo", "cpo", "orpo"} & set(section.loss):
        return reference_free(section, arguments)(network, train_dataset=data, **common)
    return direct(section, arguments, reference is not None)(network, ref_model=reference, train_dataset=data, **common)


def direct(section: Any, arguments: dict, holds_reference: bool) -> Callable:
    """TRL's DPOTrainer, which takes the rows as they are."""
    from trl import DPOConfig, DPOTrainer

    class Trainer(steps.Weighed, DPOTrainer):  # pyright: ignore[reportIncompatibleMethodOverride]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    options = {
        "loss_type": section.loss, "loss_weights": section.loss_weights, "beta": section.beta, "label_smoothing": section.label_smoothing,
        "f_divergence_type": section.f_divergence, "f_alpha_divergence_coef": section.f_alpha, "ld_alpha": section.ld_alpha,
        "discopop_tau": section.discopop_tau, "precompute_ref_log_probs": not holds_reference,
    }  # fmt: skip
    settings = DPOConfig(**arguments, **options)
    return lambda network, **rest: Trainer(network, args=settings, **rest)


def reference_free(section: Any, arguments: dict) -> Callable:
    """TRL's CPO trainer (cpo with its NLL term of weight 1, simpo without) or its ORPO trainer, beta being ORPO's
    lambda.

    The NLL of cpo is over the chosen answer, that of orpo over prompt and answer, as TRL has them; both are means over
    a micro-batch's tokens.
    """
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    def tokenized(feature: Pair) -> dict[str, list[int]]:
        made = {"prompt_input_ids": feature["prompt_ids"], "prompt_attention_mask": [1] * len(feature["prompt_ids"])}
        for side in ("chosen", "rejected"):
            ids = feature["prompt_ids"] + feature[f"{side}_ids"]
            labels = [-100] * len(feature["prompt_ids"]) + feature[f"{side}_ids"]
            made |= {f"{side}_input_ids": ids, f"{side}_attention_mask": [1] * len(ids), f"{side}_labels": labels}
        return made

    class Cpo(steps.Weighed, CPOTrainer):
        def tokenize_row(self, feature: Any, model: Any = None) -> dict:
            return tokenized(feature)

    class Orpo(steps.Weighed, ORPOTrainer):
        def tokenize_row(self, feature: Any, model: Any = None) -> dict:
            return tokenized(feature)

    base = arguments | {"beta": section.beta, "remove_unused_columns": False}
    if "orpo" in section.loss:
        settings: Any = ORPOConfig(**base)
        return lambda network, **rest: Orpo(network, args=settings, **rest)
    simpo = "simpo" in section.loss
    kind = (
        {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": section.simpo_gamma}
        if simpo
        else {"loss_type": "sigmoid", "cpo_alpha": 1.0}
    )
    settings = CPOConfig(**base, **kind, label_smoothing=section.label_smoothing)
    return lambda network, **rest: Cpo(network, args=settings, **rest)


def unpaired(pairs: list[Pair], used: int, batch: int, seed: int) -> list[dict]:
    """Both sides of every pair as rows of their own, in a fixed shuffle; each batch's chosen sides stand before its
    rejected ones.

    The baseline of a row is of its neighbour's answer (KL_completion_ids), which belongs to another prompt.
    """
    rows: list[dict] = []
    drawn = steps.order([0] * len(pairs), used, batch, seed, 0)
    for k in range(0, len(drawn), batch):
        part = [pairs[i] for i in drawn[k : k + batch]]
        sides = [(p, side) for side in ("chosen", "rejected") for p in part]
        made = [
            {"prompt_ids": p["prompt_ids"], "completion_ids": p[f"{side}_ids"], "label": side == "chosen"}
            for p, side in sides
        ]
        rows += [row | {"KL_completion_ids": made[i - 1]["completion_ids"]} for i, row in enumerate(made)]
    return rows


def kto(section: Any, arguments: dict) -> Callable:
    """TRL's KTOTrainer on unpaired rows; a global batch of so many pairs is one of twice as many rows."""
    from trl import KTOConfig, KTOTrainer

    class Kto(KTOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    settings = KTOConfig(
        **(arguments | {"per_device_train_batch_size": 2 * arguments["per_device_train_batch_size"]}), beta=section.beta
    )
    return lambda network, **rest: Kto(network, args=settings, **rest)
