"""Low-rank adapters: training a few weights beside frozen ones, and merging what was learnt into the model.

Source  Hu et al. 2022, arXiv 2106.09685

An adapter is kept as peft keeps it, in safetensors; its config names the digest of the model that it was trained on,
and it is merged into no other.
"""

import json
from pathlib import Path
from typing import Any

from stages.training import digest

NAME = "adapter"
"""Where in a policy's folder its adapter lies: loaders of the folder do not look there."""


def config(rank: int, alpha: float) -> Any:
    """Adapters of all linear layers but the head, scaled by alpha / rank."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")  # pyright: ignore[reportArgumentType]


def save(trainer: Any, tokenizer: Any, start: Path, policy: Path, dtype: str) -> None:
    """The adapter under policy/adapter, and in policy/ the start model's own weights with the adapter merged in."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(policy / NAME, state_dict=state)
        (policy / NAME / "README.md").unlink(missing_ok=True)
        described = policy / NAME / "adapter_config.json"
        facts = json.loads(described.read_text(encoding="utf-8"))
        facts |= {"base_model_name_or_path": str(start), "revision": digest.model(start)}
        described.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        # or ZeRO-3 would cut the model that is merged into over all processes, which are not here
        unset_hf_deepspeed_config()
        merge(start, policy / NAME, policy, dtype)
        tokenizer.save_pretrained(policy)
    trainer.accelerator.wait_for_everyone()


def merge(model: Path, adapter: Path, merged: Path, dtype: str) -> None:
    """Write the model with the adapter in its weights.

    Raises ValueError for an adapter that was trained on another model.
    """
    facts, this = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")), digest.model(model)
    if facts["revision"] != this:
        other = f"{facts['base_model_name_or_path']} with digest {facts['revision']}"
        raise ValueError(f"{adapter} was trained on {other}, {model} has {this}; merge it into the model it belongs to")
    # only now: a refusal is one line, and bitsandbytes, which peft imports, has a word of its own on some processors
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    whole = PeftModel.from_pretrained(network, str(adapter)).merge_and_unload().to(getattr(torch, dtype))  # pyright: ignore[reportCallIssue]
    whole.config.dtype = getattr(torch, dtype)
    whole.save_pretrained(merged)
