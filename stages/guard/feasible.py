"""What cannot work, told before hours are spent: by params.yaml together with what is known of the models, the prompts
and the machine.

The guard asks before every stage, `python -m stages.tools.plan` before the first. What params.yaml alone tells is in
agreement.py.

Errors  Refusal, one line for the user
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.guard import batches, facts, integrity, memory, spent
from stages.guard.refusal import Refusal


def check(params: Any, root: Path, dear: bool) -> None:
    """What cannot work, told as soon as it is known, before hours are spent; `dear` for a stage that computes with
    models: it stands behind `prompts` in the graph, whose account is then of today's prompts.
    """
    check_room(params, root)
    check_forms(params, root)
    if dear:
        check_pool(params, root)
        check_gpus(params)
        check_memory(params, root)


def contract(root: Path, model: str) -> Path:
    """Where it stands what a model that was brought takes: the policy's and the reward model's base, or `pretrained`,
    which others trained.
    """
    name = "reward_contract.json" if model == "pretrained" else "text_contract.json"
    return root / "models" / model / name


def check_room(params: Any, root: Path) -> None:
    """What may be asked and answered fits what the models were made for; known as soon as they have been brought."""
    prompt, answer = params.prompts.max_tokens, params.generate.max_new_tokens
    for model in readers(params):
        path = contract(root, model)
        context = json.loads(path.read_text(encoding="utf-8"))["context"] if path.exists() else None
        if context and prompt + answer > context:
            raise Refusal(too_long(prompt, answer, model, context))


def readers(params: Any) -> list[str]:
    """The models that read a prompt with its answer, by their folders in models/."""
    found = [params.start_from.policy]
    if "reward_model" in batches.trainers(params):
        found.append(params.start_from.reward_model)
    return [*dict.fromkeys(found), *params.signals.pretrained]


def too_long(prompt: int, answer: int, model: str, context: int) -> str:
    told = f"prompts.max_tokens = {prompt} and generate.max_new_tokens = {answer} are over the {context} tokens"
    return f"params.yaml: {told} of models/{model}'s context; lower one of them"


def check_forms(params: Any, root: Path) -> None:
    """The reward model is trained on data that the policy's template took: it must take the same forms of prompts."""
    policy, reward = params.start_from.policy, params.start_from.reward_model
    brought = [contract(root, name) for name in (policy, reward)]
    if not all(path.exists() for path in brought):
        return
    mine, its = (json.loads(path.read_text(encoding="utf-8")) for path in brought)
    folded = {"system_role"} if mine["fold_system"] else set()
    for form, reason in its["refused"].items():
        if form not in {*mine["refused"], *folded}:
            told = f"models/{reward} takes no {form} ({reason}), and models/{policy} lets the data hold some"
            fold = f"set bases.{policy}.system_role = fold, or " if form == "system_role" else ""
            raise Refusal(f"params.yaml: {told}; {fold}give bases.{reward} a template that takes it")


POOL = Path("metrics/prompts.json")
"""The account of `prompts`: how many there are to sample from."""


def check_pool(params: Any, root: Path) -> None:
    """All iterations find their prompts, if the account is of the prompts that params.yaml asks for; `check_account`
    looks at a new one.
    """
    recorded = integrity.locked_stages(root).get("prompts", {})
    section, path = params.prompts, root / POOL
    asked = {f"prompts.{name}": str(getattr(section, name)) for name in ("max_tokens", "validation", "test")}
    is_current = (
        recorded.get("params", {}).get("params.yaml") == asked
        and any(dep["path"] == os.path.normpath(section.raw) for dep in recorded["deps"])
        and any(
            out["path"] == str(POOL) and path.exists() and out["md5"] == integrity.md5(path) for out in recorded["outs"]
        )
    )
    if is_current:
        check_account(path, params)


def check_account(account: Path, params: Any) -> None:
    """The account of `prompts` tells of enough for every iteration. Raises Refusal."""
    pool = json.loads(account.read_text(encoding="utf-8"))["pool"]
    if told := too_few(pool, params):
        raise Refusal(told)


def too_few(pool: int, params: Any) -> str:
    """What to say of a pool that is too small for the iterations, or nothing."""
    each, number = params.prompts.per_iteration, len(params.iterations)
    if each * number <= pool:
        return ""
    told = f"params.yaml: {number} iterations x prompts.per_iteration = {each} want {each * number} prompts"
    remedy = f"lower prompts.per_iteration to {pool // number}, or bring more prompts"
    return f"{told}, the pool has {pool}; {remedy}"


def check_gpus(params: Any) -> None:
    """There are as many GPUs as the layout names, if there are any."""
    runtime, there = params.runtime, len(spent.gpus())
    working = f"workers x runtime.gpus_per_worker = {runtime.workers} x {runtime.gpus_per_worker}"
    each = runtime.processes // runtime.nodes
    asked = {f"processes / runtime.nodes = {runtime.processes} / {runtime.nodes}": each}
    if "RAY_ADDRESS" not in os.environ:  # a cluster's are counted by the pool
        asked[working] = runtime.workers * runtime.gpus_per_worker
    for told, wanted in asked.items():
        if wanted > there > 0:
            raise Refusal(f"params.yaml: runtime.{told}, there are {there} GPUs; lower it")


def check_memory(params: Any, root: Path) -> None:
    """Each training's weights, gradients and optimiser, exact by arithmetic, fit a GPU, or those of all processes this
    machine; known once the models have been brought.
    """
    gpus = spent.gpus()
    room, each = (min(size for _, size in gpus), 1) if gpus else (machine(), params.runtime.processes)
    for stage, size in held(params, lambda base: facts.shape(root / "models" / base)).items():
        if each * size > room:
            raise Refusal(too_large(stage, each * size, room, "a GPU" if gpus else "this machine"))


def held(params: Any, shape_of: Callable[[str], facts.Shape | None]) -> dict[str, float]:
    """Bytes of each training's states on one process, by the shapes of the models in bases where they are known."""
    start, runtime, found = params.start_from, params.runtime, {}
    for name, section in batches.trainers(params).items():
        if shape := shape_of(getattr(start, name, start.policy)):
            cut = memory.cut(shape, getattr(section, "layers", None), head=name != "reward_model")
            adapted = (section.lora_rank, section.quantized) if name == "dpo" else (0, False)
            found[name] = memory.trained(cut, *adapted, runtime.deepspeed, runtime.processes)
    return found


def too_large(stage: str, wanted: float, room: float, of: str) -> str:
    sizes = f"{wanted / 2**30:.1f} GiB of weights, gradients and optimiser, {of} has {room / 2**30:.1f}"
    remedy = "share them by runtime.deepspeed = 3 and more runtime.processes, or train adapters by dpo.lora_rank"
    return f"params.yaml: {stage} holds {sizes}; {remedy}"


def machine() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
