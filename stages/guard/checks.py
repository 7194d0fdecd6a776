"""What the guard checks before a stage runs, and before its result is recorded.

Errors  Refusal, one line for the user; ValueError where a file itself is at fault
"""

import json
import socket
from pathlib import Path
from typing import Any

from stages.guard import fingerprint, integrity, packages
from stages.guard.refusal import Refusal

ROOT = Path(__file__).resolve().parents[2]
State = dict[str, tuple[int, int, int]]
"""Size in bytes, time of the last change in ns, and inode of every file."""


def check_code(stage: str) -> None:
    """Code and installed packages are the ones that `fingerprint` recorded for this stage."""
    recorded = fingerprint.read(ROOT / "code.lock.yaml").get(stage.replace(".", "_"))
    if recorded != fingerprint.key(stage, ROOT):
        raise Refusal(
            "its code differs from code.lock.yaml; run `dvc --wait-for-lock repro`, which first mends the file"
        )
    for name, locked, installed in packages.unlike_the_lock(fingerprint.packages(stage, ROOT), ROOT):
        raise Refusal(f"{name} {locked} is locked, {installed or 'none'} is installed; run `make setup`")


def check_node(stage: str, key: str) -> None:
    """A process on this node would run what was started, whose key is `key`."""
    check_code(stage)
    if fingerprint.key(stage, ROOT) != key:
        told = "its code or its requirements.lock is another than where the stage was started"
        raise Refusal(f"{socket.gethostname()}: {told}; bring this node to the same commit")


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
