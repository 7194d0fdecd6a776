"""What the trainers share: TRL settings from a params section, going on after a kill, the curve and the account they
leave, the folder they save.

The guard names a scratch folder by the hash of all that a run's result depends on (STAGE_SCRATCH, see
stages/guard/scratch.py). Checkpoints go there by the clock (checkpoints.py), and a run that finds its own goes on from
it; outside the guard there are none.

The layout changes no result: the same rows make each step (stages/training/steps.py), and bfloat16 means float32
weights under autocast with DeepSpeed as without. What remains is the order of sums, in the last digits, and in a CSV
the means that TRL takes over micro-batches.
"""

import csv
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from stages.training import checkpoints, watch

UNTOLD = {"step", "epoch", "num_tokens", "eval_num_tokens"} | {
    f"eval_{name}" for name in ("runtime", "samples_per_second", "steps_per_second")
}
"""What a curve leaves out of the trainer's log: counts that say nothing, and times, which differ from run to run."""


def arguments(section: Any, params: Any, rows: int) -> dict[str, Any]:
    """TrainingArguments that every trainer takes: the science from `section`, the layout from `runtime`.

    Raises ValueError when the global batch cannot be split evenly over processes and micro-batches.
    """
    import torch

    seed(params.seed)
    gpu, runtime = torch.cuda.is_available(), params.runtime
    if runtime.threads and not gpu:
        torch.set_num_threads(runtime.threads)
    return science(section, params, rows) | layout(section, runtime, gpu)


def science(section: Any, params: Any, rows: int) -> dict[str, Any]:
    """What decides the result. bfloat16 under DeepSpeed is `autocast` below."""
    steps = -(-rows // section.global_batch_rows) * section.epochs
    return {
        "num_train_epochs": section.epochs,
        "learning_rate": section.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(section.warmup_share * steps),
        "max_length": section.max_tokens,
        "seed": params.seed,
        "bf16": params.dtype == "bfloat16" and not params.runtime.deepspeed,
    }


def layout(section: Any, runtime: Any, gpu: bool) -> dict[str, Any]:
    """What does not: how a global batch is split, where checkpoints go, what is logged."""
    micro = min(runtime.micro_batch_rows, section.global_batch_rows)
    together = runtime.processes * micro
    if section.global_batch_rows % together:
        rule = f"must be a multiple of runtime.processes x runtime.micro_batch_rows = {together}"
        raise ValueError(f"global_batch_rows = {section.global_batch_rows} {rule}; change runtime")
    scratch = os.environ.get("STAGE_SCRATCH")
    return {
        "output_dir": scratch or tempfile.mkdtemp(prefix="training-"),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": section.global_batch_rows // together,
        "use_cpu": not gpu,
        "gradient_checkpointing": runtime.gradient_checkpointing,
        "deepspeed": deepspeed(runtime, gpu) if runtime.deepspeed else None,
        "save_strategy": "no",  # checkpoints.keeper asks for them
        **reporting(runtime.report_to, scratch),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # or a NaN would be logged as the mean so far
        "dataloader_pin_memory": gpu,
    }


def reporting(tracker: str, scratch: str | None) -> dict[str, Any]:
    """Live curves for who watches hours of training, beside the stage's outputs and never among them: under
    .scratch/curves, or where the tracker's own environment variables say.

    Raises ValueError where the tracker is not installed.
    """
    if tracker == "none":
        return {"report_to": "none"}
    if importlib.util.find_spec(tracker) is None:
        told = f"runtime.report_to = {tracker}, and no package {tracker} is installed"
        raise ValueError(f"params.yaml: {told}; run `pip install {tracker}`, or set it to none")
    name = Path(scratch).parent.name.replace("%", "/") if scratch else "training"
    home = Path(os.environ.get("STAGE_HOME", ".scratch")).absolute() / "curves"
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(home / name))
    os.environ.setdefault("TRACKIO_DIR", str(home / "trackio"))
    os.environ.setdefault("WANDB_DIR", str(home))
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")  # MLflow 3 refuses a folder
    return {"report_to": tracker, "run_name": name}


def seed(number: int) -> None:
    """Every generator: of a new head's weights, of dropout, of the order of rows."""
    import transformers

    transformers.set_seed(number)


def deepspeed(runtime: Any, gpu: bool) -> dict[str, Any]:
    """A DeepSpeed configuration for the ZeRO stage in `runtime.deepspeed`; "auto" values come from the trainer's own
    arguments.

    It names no mixed precision: DeepSpeed's own casts weights and inputs to bfloat16, the reference's log-probabilities
    among them, and would make the result depend on the layout.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if gpu else "cpu")
    return {
        "zero_optimization": {"stage": runtime.deepspeed, "stage3_gather_16bit_weights_on_model_save": True},
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
        held = f"the model has {settings.num_hidden_layers}"
        raise ValueError(f"params.yaml: {name} = {layers}, {held}; lower it or set null")
    settings.num_hidden_layers = layers or settings.num_hidden_layers
    return model_class.from_pretrained(model, config=settings, **model_options())


def autocast(trainer: Any) -> None:
    """Let the model, and a reference beside it, compute in bfloat16 and answer in float32, as accelerate does unless
    DeepSpeed runs: the same numbers on any layout.
    """
    import torch
    from accelerate.utils import convert_outputs_to_fp32

    low = torch.autocast(trainer.args.device.type, torch.bfloat16)
    for held in filter(None, (trainer.model, getattr(trainer, "ref_model", None))):
        model = trainer.accelerator.unwrap_model(held)
        model.forward = convert_outputs_to_fp32(low(model.forward))


def train(trainer: Any, params: Any, rows_of: watch.RowsOf | None = None) -> None:
    """Train to the end, from this run's own last whole checkpoint if there is one; `rows_of` names a step's rows.

    Raises  ValueError as soon as a loss or a gradient is no number, or the gradient's norm is over watch.EXPLODED times
            the first.
    """
    from transformers import ProgressCallback

    if trainer.is_deepspeed_enabled and params.dtype == "bfloat16":
        autocast(trainer)
    trainer.remove_callback(ProgressCallback)
    minutes = params.runtime.checkpoint_minutes if os.environ.get("STAGE_SCRATCH") else None
    for each in (*watch.callbacks(rows_of), checkpoints.keeper(minutes)):
        trainer.add_callback(each)
    if trainer.args.report_to:
        trainer.callback_handler.callbacks.insert(0, watch.speed())  # before the tracker's own, which reads the numbers
    last = checkpoints.last_whole(Path(trainer.args.output_dir))
    if last:
        print(f"going on after step {checkpoints.steps_done(last)}, from this run's own checkpoint", flush=True)
    trainer.train(resume_from_checkpoint=str(last) if last else None)


def write_curve(trainer: Any, path: Path) -> None:
    """One CSV row per optimiser step and evaluation, with every number the trainer logged but UNTOLD."""
    rows = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
    names = ["step", *sorted({name for row in rows for name in row} - UNTOLD)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: round(v, 6) if isinstance(v, float) else v for name, v in row.items()})


def losses(trainer: Any) -> list[list[float]]:
    """[step, loss] of every optimiser step, rounded as in the curve: what a report draws without a cached file."""
    return [[entry["step"], round(entry["loss"], 6)] for entry in trainer.state.log_history if "loss" in entry]


def untrained(model: Path, policy: Path, curve: Path) -> None:
    """The model as it is, without what is kept in folders beside it, and a curve of no steps; every process does it."""
    policy.mkdir(parents=True, exist_ok=True)
    for file in (path for path in model.iterdir() if path.is_file()):
        shutil.copyfile(file, policy / file.name)
    curve.write_text("step,loss\n", encoding="utf-8")


def account(used: int, drops: dict[str, int], curve: list[list[float]]) -> dict[str, Any]:
    """A training's metrics: rows in, rows trained on, rows left out by name, and the loss of every step."""
    return {
        "rows_in": used + sum(drops.values()),
        "rows_out": used,
        "drops": drops,
        "steps": len(curve),
        "curve": curve,
    }


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
