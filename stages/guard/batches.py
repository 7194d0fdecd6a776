"""How a global batch is split over processes and micro-batches, checked by params.yaml alone: the trainers would refuse
the same (stages/training/harness.py, objectives.py), but only once what they train on has been sampled.
"""

from typing import Any

from stages.training import losses


def trainers(params: Any) -> dict[str, Any]:
    """The sections of what is trained, by name."""
    signals = params.signals
    used = {
        "sft": params.sft.rows != 0,
        "reward_model": signals.reward_model or signals.ensemble or signals.refreshed,
        "preference_model": signals.preference_model,
        "dpo": True,
    }
    return {name: getattr(params, name) for name, is_used in used.items() if is_used}


def can_be_shared(params: Any) -> None:
    """As the trainers split them (stages/training/harness.py), but before anything was sampled for them."""
    runtime = params.runtime
    for name, section in trainers(params).items():
        batch = section.global_batch_rows
        together = runtime.processes * min(runtime.micro_batch_rows, batch)
        if batch % together:
            rule = f"must be a multiple of runtime.processes x runtime.micro_batch_rows = {together}"
            raise ValueError(f"{name}.global_batch_rows = {batch} {rule}; change runtime, or the batch")


def are_seen_whole(params: Any) -> None:
    """A loss that compares rows of one micro-batch is told of a layout that parts them."""
    batch, runtime = params.dpo.global_batch_rows, params.runtime
    together = runtime.processes * runtime.micro_batch_rows
    sorts = sorted(losses.SORTED & set(params.dpo.loss))
    name = next(iter([*sorts, *({"kto"} & set(params.dpo.loss))]), "")
    is_parted = batch > together or (sorts and runtime.processes > 1)
    if name and is_parted:
        layout = "processes = 1 and runtime.micro_batch_rows" if sorts else "processes x runtime.micro_batch_rows"
        told = f"compares the rows of one micro-batch: set runtime.{layout} = dpo.global_batch_rows = {batch}"
        raise ValueError(f"dpo.loss {name} {told}")
