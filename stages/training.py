"""What the trainers `sft`, `reward_model` and `dpo` share: TRL settings from a params section, the curve they leave, the folder they save."""

import csv
import os
from pathlib import Path
from typing import Any


def arguments(section: Any, params: Any, rows: int) -> dict[str, Any]:
    """TrainingArguments that every trainer takes: the science from `section`, the layout from `runtime`; nothing is saved on the way.

    Raises ValueError when the global batch cannot be split evenly over processes and micro-batches.
    """
    import torch

    seed(params.seed)
    gpu, runtime = torch.cuda.is_available(), params.runtime
    if runtime.threads and not gpu:
        torch.set_num_threads(runtime.threads)
    step = runtime.processes * min(runtime.micro_batch_rows, section.global_batch_rows)
    if section.global_batch_rows % step:
        raise ValueError(
            f"global_batch_rows = {section.global_batch_rows} must be a multiple of runtime.processes x runtime.micro_batch_rows = {step}; change runtime"
        )
    steps = -(-rows // section.global_batch_rows) * section.epochs
    return {
        "output_dir": os.environ.get("TMPDIR", "/tmp"),  # nothing is written there: see save_strategy
        "num_train_epochs": section.epochs,
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(section.warmup_share * steps),
        "per_device_train_batch_size": step // runtime.processes,
        "gradient_accumulation_steps": section.global_batch_rows // step,
        "max_length": section.max_tokens,
        "seed": params.seed,
        "bf16": params.dtype == "bfloat16",
        "use_cpu": not gpu,
        "gradient_checkpointing": runtime.gradient_checkpointing,
        "deepspeed": deepspeed(runtime, gpu) if runtime.deepspeed else None,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "dataloader_pin_memory": gpu,
    }


def seed(number: int) -> None:
    """Every generator: of a new head's weights, of dropout, of the order of rows."""
    import transformers

    transformers.set_seed(number)


def deepspeed(runtime: Any, gpu: bool) -> dict[str, Any]:
    """A DeepSpeed configuration for the ZeRO stage in `runtime.deepspeed`; "auto" values come from the trainer's own arguments."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if gpu else "cpu")
    return {
        "zero_optimization": {"stage": runtime.deepspeed, "stage3_gather_16bit_weights_on_model_save": True},
        "bf16": {"enabled": "auto"},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }


def model_options() -> dict[str, Any]:
    """float32 weights while training: an update of 1e-5 is lost in bfloat16."""
    import torch

    return {"dtype": torch.float32, "use_safetensors": True, "local_files_only": True}


def write_curve(trainer: Any, path: Path) -> None:
    """One CSV row per optimiser step and evaluation, with every number the trainer logged but times, which would differ from run to run."""
    rows = [r for r in trainer.state.log_history if "loss" in r or "eval_loss" in r]
    drop = {"epoch", "num_tokens", "eval_num_tokens", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    names = ["step", *sorted({k for r in rows for k in r} - drop - {"step"})]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: round(v, 6) if isinstance(v, float) else v for k, v in r.items()} for r in rows)


def save(trainer: Any, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Weights as `dtype` safetensors, config and tokenizer, and nothing else (no training_args.bin, which is a pickle).

    A tied weight is saved once, under the name it is tied to: DeepSpeed gathers it under both.
    """
    import torch

    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        model.config.use_cache = True
        model.config.dtype = getattr(torch, dtype)
        once = {k: v.to(model.config.dtype) for k, v in state.items() if k not in model.all_tied_weights_keys}
        model.save_pretrained(folder, state_dict=once)
        tokenizer.save_pretrained(folder)
    trainer.accelerator.wait_for_everyone()
