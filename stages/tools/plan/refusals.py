"""What cannot work: what the guard would refuse, and what only the plan can know, before the first stage runs."""

import shutil
from pathlib import Path

from stages.guard import facts, feasible
from stages.guard.refusal import Refusal
from stages.tools.plan import published
from stages.tools.plan.devices import Device
from stages.tools.plan.flow import Flow
from stages.tools.plan.forecast import Cost
from stages.tools.plan.graph import Stage


def found(flow: Flow, stages: list[Stage], device: Device, costs: list[Cost], copies: int) -> list[str]:
    """One line for each."""
    told = [*guarded(flow, device), *contexts(flow), pool(flow), *missing(flow, stages)]
    told += [*too_large(flow, device)]
    if not device.is_named:
        told.append(disk(flow.root, costs, copies))
    return list(dict.fromkeys(filter(None, told)))


def guarded(flow: Flow, device: Device) -> list[str]:
    """What the guard refuses by the files that are there and stay."""
    checks = [lambda: feasible.check_forms(flow.params, flow.root)]
    if not device.is_named:
        checks.append(lambda: feasible.check_gpus(flow.params))
    if "prompts" not in flow.anew:
        checks.append(lambda: feasible.check_pool(flow.params, flow.root))
    told = []
    for check in checks:
        try:
            check()
        except Refusal as refusal:
            told.append(str(refusal))
    return told


def contexts(flow: Flow) -> list[str]:
    """A prompt with its answer fits every model that reads both, as brought or as published."""
    prompt, answer = flow.params.prompts.max_tokens, flow.params.generate.max_new_tokens
    read = {name: flow.shape(f"models/{name}") for name in feasible.readers(flow.params)}
    found = {name: shape.context for name, shape in read.items() if shape and shape.context}
    return [feasible.too_long(prompt, answer, *each) for each in found.items() if prompt + answer > each[1]]


def pool(flow: Flow) -> str:
    """The prompts that there are to be read, less test and validation, reach for all iterations, if none is dropped."""
    if "prompts" not in flow.anew or published.raw_rows(flow.root / flow.params.prompts.raw) is None:
        return ""
    path = next(stage.words["pool"][0] for stage in flow.made.values() if stage.module == "data.prompts")
    return feasible.too_few(flow.table(path).rows, flow.params)


def missing(flow: Flow, stages: list[Stage]) -> list[str]:
    """Inputs that no stage makes are there."""
    deps = dict.fromkeys(dep for stage in stages for dep in stage.deps if dep.startswith("data/raw/"))
    return [f"{dep} is missing; bring it with `dvc pull {dep}`, or mend params.yaml" for dep in deps
            if not (flow.root / dep).exists()]  # fmt: skip


def too_large(flow: Flow, device: Device) -> list[str]:
    """Each training's states fit a GPU, or all of them this machine; each engine's weights its share of a GPU."""
    runtime = flow.params.runtime
    at_once = 1 if device.is_gpu else runtime.processes
    of = "a GPU" if device.is_gpu else "this machine"
    states = feasible.held(flow.params, lambda base: flow.shape(f"models/{base}"))
    told = [feasible.too_large(name, size * at_once, device.memory, of) for name, size in states.items()
            if size * at_once > device.memory]  # fmt: skip
    shape = flow.shape(f"models/{flow.params.start_from.policy}")
    weights = facts.weights(shape) * facts.DTYPE_BYTES[flow.params.dtype] / runtime.gpus_per_worker if shape else 0
    if device.is_gpu and weights > (share := device.memory * runtime.engine_memory_share):
        sizes = f"{weights / 2**30:.1f} GiB of weights, its share of a GPU is {share / 2**30:.1f}"
        told.append(f"params.yaml: the engine holds {sizes}; raise runtime.gpus_per_worker or engine_memory_share")
    return told


def disk(root: Path, costs: list[Cost], copies: int) -> str:
    """Outputs, in the workspace and in DVC's cache, and checkpoints fit the disk."""
    free = shutil.disk_usage(root).free
    wanted = copies * sum(cost.outputs for cost in costs) + max((cost.checkpoints for cost in costs), default=0.0)
    if wanted <= free:
        return ""
    sizes = f"{wanted / 2**30:.1f} GiB are wanted, {free / 2**30:.1f} are free"
    return f"the disk is too small: {sizes}; free some, or let DVC link its files by `dvc config cache.type hardlink`"
