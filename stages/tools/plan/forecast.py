"""What each stage that would run costs: its work, seconds, memory of a device, disk."""

from pathlib import Path
from typing import Any, NamedTuple

from stages.guard import facts, feasible, memory, spent
from stages.guard.facts import Shape
from stages.tools.plan import devices, work
from stages.tools.plan.devices import Device, Past
from stages.tools.plan.flow import Flow
from stages.tools.plan.graph import Stage
from stages.tools.plan.work import TRAINING, Case, Work

CHECKPOINT = {False: 12, True: 16}  # bytes a weight: float32 and Adam's two means; DeepSpeed's holds weights twice
TEXT = 0.5  # of a table's text, compressed
PROCESS = 0.4 * 2**30  # bytes of Python with polars or pyarrow
STREAMED = 1.0 * 2**30  # bytes of a stage that reads batch by batch: 0.95 GiB for a million rows


class Cost(NamedTuple):
    """Of one stage: seconds, and whether `measured` by earlier runs or by `roofline`; bytes of memory on each device,
    of its outputs, of checkpoints meanwhile.
    """

    stage: str
    outs: list[str]
    work: Work
    seconds: float
    by: str
    memory: float
    outputs: float
    checkpoints: float

    @property
    def device_hours(self) -> float:
        return self.seconds * self.work.devices / 3600


def case_of(stage: Stage, flow: Flow) -> Case:
    """A run to come: every option's table or shape, by the first of its paths; a model that two options name, as
    `measure` of pi_0 does, is read once.
    """
    firsts = {name: words[0] for name, words in stage.words.items() if words}
    tables = {name: flow.table(path) for name, path in firsts.items() if is_table(path)}
    models = spent.once(firsts) if stage.module in work.WITH_MODELS else {}
    found = {name: flow.shape(path) for name, path in models.items() if path.startswith("models/")}
    shapes = {name: shape for name, shape in found.items() if shape}
    return Case(stage.module, tables, shapes, settings(stage, flow), flow.params.runtime.model_dump())


def settings(stage: Stage, flow: Flow) -> dict[str, Any]:
    """The params under dotted keys. AlpacaEval's referee weighs two letters, and reads no limit of what it writes."""
    found = leaves(flow.params.model_dump())
    if stage.module == work.REFEREE and flow.params.chats[Path(stage.words["asked"][0]).stem].task == "alpaca_eval":
        del found["referee.max_tokens"]
    return found


def is_table(path: str) -> bool:
    return path.startswith("data/") and not path.startswith("data/raw/") and Path(path).suffix in ("", ".parquet")


def leaves(node: Any, path: str = "") -> dict[str, Any]:
    """Sections and their leaves under dotted keys."""
    if not isinstance(node, dict):
        return {path: node}
    found = {path: node} if path else {}
    for key, value in node.items():
        found |= leaves(value, f"{path}.{key}".lstrip("."))
    return found


def cost(stage: Stage, flow: Flow, device: Device, journal: list[Past]) -> Cost:
    case = case_of(stage, flow)
    of, runs = work.of(case), devices.alike(case, device, journal)
    seconds = devices.measured(of, runs, device)
    by = "roofline" if seconds is None else "measured"
    seconds = devices.by_data_sheet(of, case, device) if seconds is None else seconds
    held = max((run.memory for run in runs if devices.sizes(run.case) == devices.sizes(case)), default=0.0)
    outputs = sum(size(path, flow) for path in stage.outs)
    checkpoints = kept(trainee(case, flow.params), flow.params.runtime) if case.module in TRAINING else 0.0
    return Cost(
        stage.name, stage.outs, of, seconds, by, held or needed(case, of.kind, flow, device), outputs, checkpoints
    )


def size(path: str, flow: Flow) -> float:
    """Bytes of an output: weights as params.dtype, text compressed; the rest is small."""
    if path.startswith("models/"):
        shape = flow.shape(path)
        return facts.weights(shape) * facts.DTYPE_BYTES[flow.params.dtype] if shape else 0.0
    if not is_table(path):
        return 0.0
    table = flow.table(path)
    return table.rows * (table.prompt + 2 * table.answer) * facts.BYTES_PER_TOKEN * TEXT


def trainee(case: Case, params: Any) -> Shape:
    """The model that a stage trains: a reward or preference model is the first blocks of its base."""
    name = TRAINING[case.module]
    layers = getattr(getattr(params, name), "layers", None)
    return memory.cut(case.shapes["model"], layers, head=name != "reward_model")


def kept(shape: Shape, runtime: Any) -> float:
    """The last checkpoint and the next one, which are there together for a moment."""
    each = CHECKPOINT[runtime.deepspeed > 0] * facts.weights(shape)
    return 0.0 if runtime.checkpoint_minutes is None else 2 * each


def needed(case: Case, kind: str, flow: Flow, device: Device) -> float:
    """Bytes on each device, at most, for work of this kind: for the longest rows that params.yaml lets in."""
    params = flow.params
    runtime, each = params.runtime, facts.DTYPE_BYTES[params.dtype]
    if case.module in TRAINING:
        states = feasible.held(params, lambda base: flow.shape(f"models/{base}"))
        return states.get(TRAINING[case.module], 0.0) + batch(case, params) + memory.OVERHEAD
    if kind == "sample":
        if device.is_gpu:
            return device.memory * runtime.engine_memory_share
        return (
            max(map(facts.weights, case.shapes.values())) * each
            + runtime.engine_cpu_cache_gib * 2**30
            + memory.OVERHEAD
        )
    if case.module in work.BRINGING:
        return each * sum(map(facts.weights, case.shapes.values())) + memory.OVERHEAD
    if case.shapes:
        of_weights = 4 if case.module == "training.reference" else each  # float32 under autocast, as in training
        tokens = runtime.forward_batch_tokens
        passes = [memory.passed(s, tokens, of_weights, each, n != "reward") for n, s in case.shapes.items()]
        return max(passes) + memory.OVERHEAD
    if case.module.startswith("data."):
        return STREAMED
    largest = max((t.rows * (t.prompt + 2 * t.answer) for t in case.tables.values()), default=0.0)
    return PROCESS + 4 * facts.BYTES_PER_TOKEN * largest


def batch(case: Case, params: Any) -> float:
    """Activations and logits of a micro-batch of the longest rows."""
    name, runtime = TRAINING[case.module], params.runtime
    section = getattr(params, name)
    sides = 1 if name in ("sft", "preference_model") else 2
    is_packed = getattr(section, "packing", False)  # then each is a micro-batch of its own
    rows = 1 if is_packed else min(runtime.micro_batch_rows, section.global_batch_rows)
    each, tokens = facts.DTYPE_BYTES[params.dtype], rows * sides * section.max_tokens
    has_head = name != "reward_model"
    return memory.activations(trainee(case, params), tokens, each, runtime.gradient_checkpointing, has_head)
