"""What the guard checks before a stage runs, and before its result is recorded.

Errors  Refusal, one line for the user; ValueError where a file itself is at fault
"""

import json
from pathlib import Path
from typing import Any

from stages.guard import fingerprint, integrity, packages

ROOT = Path(__file__).resolve().parents[2]
State = dict[str, tuple[int, int, int]]
"""Size in bytes, time of the last change in ns, and inode of every file."""


class Refusal(Exception):
    """The guard's own refusals; the message is one line for the user."""


def check_code(stage: str) -> None:
    """Code and installed packages are the ones that `fingerprint` recorded for this stage."""
    recorded = fingerprint.read(ROOT / "code.lock.yaml").get(stage.replace(".", "_"))
    if recorded != fingerprint.key(stage, ROOT):
        raise Refusal(
            "its code differs from code.lock.yaml; run `dvc --wait-for-lock repro`, which first mends the file"
        )
    for name, locked, installed in packages.unlike_the_lock(fingerprint.packages(stage, ROOT), ROOT):
        raise Refusal(f"{name} {locked} is locked, {installed or 'none'} is installed; run `make setup`")


def state(inputs: list[Path]) -> State:
    """Every input file, the files of a folder included. A missing input is refused."""
    for path in inputs:
        if not path.exists():
            remedy = f"bring it with `dvc pull {path}` or make it with `dvc --wait-for-lock repro`"
            raise Refusal(f"{path} is missing; {remedy}")
    files = [file for path in inputs for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    facts = {str(file): file.stat() for file in files}
    return {name: (fact.st_size, fact.st_mtime_ns, fact.st_ino) for name, fact in facts.items()}


def check_inputs(inputs: list[Path]) -> None:
    """The inputs are what dvc.lock recorded, and safe to load."""
    known = integrity.recorded(ROOT)
    for path in inputs:
        whole = next((p for p in (path, *path.parents) if str(p) in known), None)  # of policy/half, the policy
        if whole:  # else it is raw data, in git
            integrity.check_once(whole, known[str(whole)], str(state([whole])))
        integrity.check_safe(path)


def check_room(params: Any) -> None:
    """What may be asked and answered fits what the models were made for; known as soon as they have been brought."""
    prompt, answer = params.prompts.max_tokens, params.generate.max_new_tokens
    brought = {f"models/{params.start_from.policy}": "text_contract.json"}
    if params.signals.pretrained:
        brought["models/pretrained"] = "reward_contract.json"
    for model, facts in brought.items():
        path = ROOT / model / facts
        context = json.loads(path.read_text(encoding="utf-8"))["context"] if path.exists() else None
        if context and prompt + answer > context:
            told = f"prompts.max_tokens = {prompt} and generate.max_new_tokens = {answer} are over the {context} tokens"
            raise Refusal(f"params.yaml: {told} of {model}'s context; lower one of them")


def check_forms(params: Any) -> None:
    """The reward model is trained on data that the policy's template took: it must take the same forms of prompts."""
    policy, reward = params.start_from.policy, params.start_from.reward_model
    brought = [ROOT / "models" / name / "text_contract.json" for name in (policy, reward)]
    if not all(path.exists() for path in brought):
        return
    mine, its = (json.loads(path.read_text(encoding="utf-8")) for path in brought)
    folded = {"system_role"} if mine["fold_system"] else set()
    for form, reason in its["refused"].items():
        if form not in {*mine["refused"], *folded}:
            told = f"models/{reward} takes no {form} ({reason}), and models/{policy} lets the data hold some"
            fold = f"set bases.{policy}.system_role = fold, or " if form == "system_role" else ""
            raise Refusal(f"params.yaml: {told}; {fold}give bases.{reward} a template that takes it")


def check_rows(written: list[Path]) -> None:
    """In every account, rows_in are rows_out and the drops, each under its name."""
    for path in written:
        if path.suffix != ".json":
            continue
        facts = json.loads(path.read_text(encoding="utf-8"))
        for account in (facts, *facts.values()):
            if isinstance(account, dict) and "rows_in" in account:
                check_account(**{key: account[key] for key in ("rows_in", "rows_out", "drops")})


def check_account(rows_in: int, rows_out: int, drops: dict[str, int]) -> None:
    if rows_in != rows_out + sum(drops.values()):
        told = f"{rows_in} rows in, {rows_out} out, drops {drops}"
        raise Refusal(f"{told}: rows went missing; this is a bug of the stage")


def check_params(seen: dict[str, Any], now: dict[str, Any]) -> None:
    """What the stage read of params.yaml still stands there."""
    for key, value in seen.items():
        if now[key] != value:
            told = f"params.yaml: {key} changed from {value} to {now[key]} during the run"
            raise Refusal(f"{told}; the result was not recorded, run again")
