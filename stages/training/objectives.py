"""Preference losses: the TRL trainer for each, with pairs that come tokenized and with the reference's
log-probabilities.

params.yaml names the losses as TRL does (dpo.loss). TRL's DPOTrainer computes most of them; simpo, cpo and orpo need
no reference and are its CPO and ORPO trainers; kto is its KTOTrainer, which sees each side of a pair alone.
stages/training/losses.py says which of them combine, and which options they read.
"""

import os
from collections.abc import Callable
from typing import Any

from stages.training import losses, steps

Pair = dict[str, Any]
"""id, prompt_ids, chosen_ids, rejected_ids (lists of token ids), ref_chosen_logps, ref_rejected_logps (nats), and in a
data set of pairs length (tokens of prompt and longer side).
"""


def reads_reference_model(section: Any) -> bool:
    """Whether a loss wants more of the reference than its sums over a pair's sides: KTO's baseline is of mismatched
    pairs, LD-DPO weighs tokens.
    """
    return "kto" in section.loss or section.ld_alpha is not None


def check_layout(section: Any, runtime: Any, pairs: int) -> None:
    """Raise ValueError where a loss that compares rows of one micro-batch would change with the layout."""
    together = runtime.micro_batch_rows * runtime.processes
    is_split = section.global_batch_rows > together
    has_rest = runtime.processes > 1 and pairs % section.global_batch_rows
    sorts = sorted(losses.SORTED & set(section.loss))
    name, rule = "", ""
    if sorts and (is_split or runtime.processes > 1):
        name, rule = sorts[0], "processes = 1 and runtime.micro_batch_rows"
    elif "kto" in section.loss and is_split:
        name, rule = "kto", "processes x runtime.micro_batch_rows"
    elif "kto" in section.loss and has_rest:
        name, rule = (
            "kto",
            f"processes = 1, since {pairs} pairs do not fill its last step, and runtime.micro_batch_rows",
        )
    if name:
        remedy = f"set runtime.{rule} = dpo.global_batch_rows = {section.global_batch_rows}"
        raise ValueError(f"dpo.loss {name} compares the rows of one micro-batch: {remedy}")


def length(pair: Pair) -> int:
    """Tokens of a pair's longer side: the width of a batch that it decides."""
    return len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))


def rows_of(section: Any, pairs: Any, seed: int) -> Callable[[int], list[str]]:
    """The ids of the pairs of an optimiser step, counted from 1; KTO goes through its rows in the same order in every
    epoch.
    """
    batch = section.global_batch_rows
    steps_per_epoch = -(-len(pairs) // batch)
    lengths, names = pairs["length"][:], pairs["id"][:]

    def ids(step: int) -> list[str]:
        epoch, k = divmod(step - 1, steps_per_epoch)
        drawn = steps.order(lengths, batch, seed, 0 if "kto" in section.loss else epoch)
        return [names[i] for i in drawn[k * batch : (k + 1) * batch]]

    return ids


def trainer(
    section: Any,
    arguments: dict,
    pairs: Any,
    tokenizer: Any,
    load: Callable[[], Any],
    load_reference: Callable[[], Any] | None,
    adapter: Any,
) -> Any:
    """The trainer of the losses in `section` on a data set of pairs; `adapter` is a peft config or None.

    The models are loaded when the trainer's settings are there: ZeRO-3 then parts their weights as they are read.
    """
    from datasets import Dataset

    named, rows = set(section.loss), pairs
    if "kto" in named:
        kind, settings = kto(section, arguments)
        rows = Dataset.from_list(unpaired(pairs, section.global_batch_rows, arguments["seed"]))
    elif named & losses.REFERENCE_FREE:
        kind, settings = reference_free(section, arguments)
    else:
        kind, settings = direct(section, arguments, load_reference is not None)
    data = steps.filled(rows, settings)
    more = {"args": settings, "processing_class": tokenizer, "peft_config": adapter}
    if not named & losses.REFERENCE_FREE:
        more["ref_model"] = load_reference() if load_reference else None
    return kind(load(), train_dataset=data, **more)


def direct(section: Any, arguments: dict, holds_reference: bool) -> tuple[Callable, Any]:
    """TRL's DPOTrainer, which takes the rows as they are, and its settings."""
    from trl import DPOConfig, DPOTrainer

    class Direct(steps.Weighed, DPOTrainer):  # pyright: ignore[reportIncompatibleMethodOverride]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    options = {
        "loss_type": section.loss,
        "loss_weights": section.loss_weights,
        "beta": section.beta,
        "label_smoothing": section.label_smoothing,
        "f_divergence_type": section.f_divergence,
        "f_alpha_divergence_coef": section.f_alpha,
        "ld_alpha": section.ld_alpha,
        "discopop_tau": section.discopop_tau,
        "precompute_ref_log_probs": not holds_reference,
    }
    return Direct, DPOConfig(**arguments, **options)


def both_sides(pair: Pair) -> dict[str, list[int]]:
    """A pair as the CPO and ORPO trainers tokenize it: each side behind the prompt, -100 on the prompt's labels."""
    prompt = pair["prompt_ids"]
    made = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
    for side in ("chosen", "rejected"):
        answer = pair[f"{side}_ids"]
        made[f"{side}_input_ids"] = prompt + answer
        made[f"{side}_attention_mask"] = [1] * len(prompt + answer)
        made[f"{side}_labels"] = [-100] * len(prompt) + answer
    return made


def reference_free(section: Any, arguments: dict) -> tuple[Callable, Any]:
    """TRL's CPO trainer (cpo with its NLL term of weight 1, simpo without) or its ORPO trainer, beta being ORPO's
    lambda; and its settings.

    The NLL of cpo is over the chosen answer, that of orpo over prompt and answer, as TRL has them; both are means over
    a micro-batch's tokens.
    """
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class Cpo(steps.Weighed, CPOTrainer):
        def tokenize_row(self, feature: Any, model: Any = None) -> dict:
            return both_sides(feature)

    class Orpo(steps.Weighed, ORPOTrainer):
        def tokenize_row(self, feature: Any, model: Any = None) -> dict:
            return both_sides(feature)

    base = arguments | {"beta": section.beta, "remove_unused_columns": False}
    if "orpo" in section.loss:
        return Orpo, ORPOConfig(**base)
    kind: dict[str, Any] = {"loss_type": "sigmoid", "cpo_alpha": 1.0}
    if "simpo" in section.loss:
        kind = {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": section.simpo_gamma}
    return Cpo, CPOConfig(**base, **kind, label_smoothing=section.label_smoothing)


def unpaired(pairs: Any, batch: int, seed: int) -> list[dict]:
    """Both sides of every pair as rows of their own, in a fixed shuffle; each batch's chosen sides stand before its
    rejected ones.

    The baseline of a row is of its neighbour's answer (KL_completion_ids), which belongs to another prompt. These rows
    are held as lists, as none of the other losses' are.
    """
    rows: list[dict] = []
    drawn = steps.order([0] * len(pairs), batch, seed, 0)
    for k in range(0, len(drawn), batch):
        part = [pairs[i] for i in drawn[k : k + batch]]
        made = [
            {"prompt_ids": pair["prompt_ids"], "completion_ids": pair[f"{side}_ids"], "label": side == "chosen"}
            for side in ("chosen", "rejected")
            for pair in part
        ]
        rows += [row | {"KL_completion_ids": made[i - 1]["completion_ids"]} for i, row in enumerate(made)]
    return rows


def kto(section: Any, arguments: dict) -> tuple[Callable, Any]:
    """TRL's KTOTrainer on unpaired rows, and its settings; a global batch of so many pairs is one of twice as many
    rows.
    """
    from trl import KTOConfig, KTOTrainer

    class Kto(KTOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    both = {"per_device_train_batch_size": 2 * arguments["per_device_train_batch_size"]}
    return Kto, KTOConfig(**(arguments | both), beta=section.beta)
