"""What the trainers share: TRL settings from a params section, going on after a kill, the stop on NaN, the curve they
leave, the folder they save.

The guard names a scratch folder by the hash of all that a run's result depends on (STAGE_SCRATCH, see
stages/guard/run.py). Checkpoints go there every runtime.checkpoint_steps, and a run that finds its own goes on from
it; outside the guard there are none.
"""

import csv
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

EXPLODED = 1e3
"""How many times its first step's a gradient norm, before clipping, may be. The first may be any number: the
quickstart's lie between 4 and 16, SPPO's at a small beta over 1e4.
"""


def arguments(section: Any, params: Any, rows: int) -> dict[str, Any]:
    """TrainingArguments that every trainer takes: the science from `section`, the layout from `runtime`.

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
        "output_dir": os.environ.get("STAGE_SCRATCH") or tempfile.mkdtemp(prefix="training-"),
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
        "save_strategy": "steps" if os.environ.get("STAGE_SCRATCH") and runtime.checkpoint_steps else "no",
        "save_steps": runtime.checkpoint_steps or 1,
        "report_to": "none",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # or a NaN would be logged as the mean so far
        "dataloader_pin_memory": gpu,
    }


def seed(number: int) -> None:
    """Every generator: of a new head's weights, of dropout, of the order of rows."""
    import transformers

    transformers.set_seed(number)


def deepspeed(runtime: Any, gpu: bool) -> dict[str, Any]:
    """A DeepSpeed configuration for the ZeRO stage in `runtime.deepspeed`; "auto" values come from the trainer's own
    arguments.
    """
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


def first_layers(model_class: Any, model: Path, layers: int | None, name: str, **config: Any) -> Any:
    """The model cut to its first `layers` blocks, whole for None.

    Raises ValueError, naming the params key, where it has fewer.
    """
    from transformers import AutoConfig

    settings = AutoConfig.from_pretrained(model, local_files_only=True, **config)
    if layers and layers > settings.num_hidden_layers:
        raise ValueError(
            f"params.yaml: {name} = {layers}, the model has {settings.num_hidden_layers}; lower it or set null"
        )
    settings.num_hidden_layers = layers or settings.num_hidden_layers
    return model_class.from_pretrained(model, config=settings, **model_options())


def whole(checkpoint: Path) -> bool:
    """Whether a checkpoint holds every file, of the right size, that stood in it when it was finished."""
    listed = checkpoint / "complete.json"
    return listed.exists() and all(
        (checkpoint / n).exists() and (checkpoint / n).stat().st_size == size
        for n, size in json.loads(listed.read_text()).items()
    )


def steps_done(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def train(trainer: Any, rows_of: Callable[[int], list[str]] | None = None) -> None:
    """Train to the end, from this run's own last whole checkpoint if there is one; `rows_of(step)` names the rows of a
    step.

    Raises  ValueError as soon as a loss or a gradient is no number, or the gradient's norm is over EXPLODED times the
            first.
    """
    from transformers import ProgressCallback

    trainer.remove_callback(ProgressCallback)
    for each in callbacks(rows_of):
        trainer.add_callback(each)
    found = [c for c in Path(trainer.args.output_dir).glob("checkpoint-*") if whole(c)]
    last = max(found, key=steps_done, default=None)
    if last:
        print(f"going on after step {steps_done(last)}, from this run's own checkpoint", flush=True)
    trainer.train(resume_from_checkpoint=str(last) if last else None)


def callbacks(rows_of: Callable[[int], list[str]] | None) -> list[Any]:
    """A bar with the loss behind it, in place of a line per step; and what marks checkpoints as whole and stops a run
    whose numbers are lost.
    """
    import torch
    from transformers import ProgressCallback, TrainerCallback

    class Bar(ProgressCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if self.training_bar is not None and "loss" in (logs or {}):
                self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")

    class Watch(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if torch.distributed.is_initialized():
                torch.distributed.barrier()  # every process has written its part
            if state.is_world_process_zero and folder.exists():
                sizes = {str(f.relative_to(folder)): f.stat().st_size for f in sorted(folder.rglob("*")) if f.is_file()}
                (folder / "complete.part").write_text(json.dumps(sizes))
                os.replace(folder / "complete.part", folder / "complete.json")
                for old in folder.parent.glob("checkpoint-*"):  # only now: at no moment is there none that is whole
                    if old.name not in (folder.name, f"checkpoint-{state.best_global_step}"):
                        shutil.rmtree(old, ignore_errors=True)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step >= state.max_steps and not args.load_best_model_at_end:
                control.should_save = (
                    False  # transformers saves at the end too, optimiser and all, of what `save` is about to write
                )

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            first = next((step["grad_norm"] for step in state.log_history if "grad_norm" in step), 1.0)
            check_numbers(state.global_step, logs or {}, first, rows_of)

    return [Bar(), Watch()]


def check_numbers(step: int, logs: dict[str, Any], first: float, rows_of: Callable[[int], list[str]] | None) -> None:
    """Raise ValueError for a loss or gradient norm that no training comes back from; `first` is the norm of the first
    step.
    """
    for name in ("loss", "grad_norm"):
        value = logs.get(name)
        if value is not None and (
            not math.isfinite(value) or (name == "grad_norm" and value > EXPLODED * max(first, 1.0))
        ):
            ids = rows_of(step) if rows_of else []
            rows = f" on rows {', '.join(ids[:8])}{', ...' if len(ids) > 8 else ''}" if ids else ""
            since = f", {first:g} at the first step" if math.isfinite(value) else ""
            raise ValueError(
                f"step {step}: {name} is {value:g}{since}{rows}; lower the learning rate, raise warmup_share, or look at these rows"
            )


def write_curve(trainer: Any, path: Path) -> None:
    """One CSV row per optimiser step and evaluation, with every number the trainer logged but times, which would
    differ from run to run.
    """
    rows = [r for r in trainer.state.log_history if "loss" in r or "eval_loss" in r]
    drop = {
        "epoch",
        "num_tokens",
        "eval_num_tokens",
        "eval_runtime",
        "eval_samples_per_second",
        "eval_steps_per_second",
    }
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
