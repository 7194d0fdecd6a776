"""Check, without a GPU, what can be checked of a clone whose artifacts were pulled: the reader's proof.

    python -m stages.tools.verify          (or: make verify)

Reads   everything, writes only to a temporary folder. Ends with one line that says what was proved and what was not,
        or with the first finding.
"""

import contextlib
import importlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.guard import checks, fingerprint, integrity, options, params
from stages.guard.refusal import Refusal

GPU = {"torch", "transformers", "trl", "vllm"}


class Finding(Exception):
    """Something is not as it was recorded; the message is one line."""


def recorded_stages() -> dict[str, dict]:
    """What was recorded of every stage that there is, by name."""
    from dvc.repo import Repo

    lock = integrity.locked_stages(Path())
    every: list[Any] = Repo().index.stages
    return {stage.name: lock[stage.name] for stage in every if stage.cmd}


def check_graph() -> None:
    """Params, commands, inputs and outputs agree with dvc.lock, as DVC sees it. Raises Finding."""
    done = subprocess.run(["dvc", "status", "--json"], capture_output=True, encoding="utf-8")
    changed = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else {}
    if done.returncode or changed:
        told = done.stderr.strip() if done.returncode else json.dumps(changed)[:300]
        remedy = "run `dvc pull`, and if it stays, `dvc --wait-for-lock repro`"
        raise Finding(f"dvc status: {told}; {remedy}")


def check_keys(root: Path) -> int:
    """code.lock.yaml says what the code says. Raises Finding."""
    recorded = fingerprint.read(root / "code.lock.yaml")
    keys = {name.replace(".", "_"): fingerprint.key(name, root) for name in fingerprint.stage_modules(root)}
    unlike = sorted(name for name in keys | recorded if keys.get(name) != recorded.get(name))
    if unlike:
        raise Finding(f"code.lock.yaml is not of this code: {unlike}; run `dvc repro fingerprint`")
    return len(keys)


def check_bytes(recorded: dict[str, str]) -> int:
    """Every output has the md5 of dvc.lock, computed anew, and is safe to load.

    Returns the bytes read. Raises ValueError for an output that is not as recorded.
    """
    total = 0
    for path in tqdm(list(map(Path, recorded)), desc="bytes", unit="out"):
        integrity.check_recorded(path, recorded[str(path)])
        integrity.check_safe(path)
        total += sum(f.stat().st_size for f in (path.rglob("*") if path.is_dir() else [path]))
    return total


def again(words: list[str], settings: Any, scratch: Path) -> None:
    """Run a CPU stage once more beside its outputs and compare. Raises Finding."""
    stage, *argv = words
    module = importlib.import_module(f"stages.{stage}")
    types, writes = options.ports(module.main)
    arguments = options.parse(argv, types)
    outs = [path for name in writes for path in options.paths(arguments[name])]
    for path in outs:
        (scratch / path).parent.mkdir(parents=True, exist_ok=True)
    beside = {name: moved(value, scratch) if name in writes else value for name, value in arguments.items()}
    with open(os.devnull, "w", encoding="utf-8") as silence, contextlib.redirect_stdout(silence):
        module.main(settings, **beside)
    for path in outs:
        if integrity.digest(path) != integrity.digest(scratch / path):
            told = f"{path}: `{stage}` computed from the same inputs gives other bytes"
            raise Finding(f"{told}; run `dvc --wait-for-lock repro`, and ask who wrote it")


def moved(value: Any, scratch: Path) -> Any:
    return [scratch / path for path in value] if isinstance(value, list) else scratch / value


def verify() -> str:
    """All checks in turn; what was proved, in one line. Raises Finding or ValueError."""
    settings = params.load(Path("params.yaml"))
    keys = check_keys(checks.ROOT)
    check_graph()
    stages = recorded_stages()
    recorded = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    commands = {name: shlex.split(stage["cmd"])[3:] for name, stage in stages.items()}
    total = check_bytes(recorded)
    checks.check_rows([Path(path) for path in recorded])
    dear = {name for name, words in commands.items() if GPU & set(fingerprint.locked_packages(words[0], checks.ROOT))}
    cheap = {name: words for name, words in commands.items() if name not in dear}
    with tempfile.TemporaryDirectory() as scratch:
        for words in tqdm(cheap.values(), desc="recomputed", unit="stage"):
            again(words, settings, Path(scratch))
    proved = [
        f"params and code keys of {keys} stages",
        f"md5 of {len(recorded)} outputs ({total / 2**30:.2f} GiB)",
        "row accounts",
        f"and {len(cheap)} of {len(stages)} stages computed again to the byte, metrics from cached answers among them",
    ]
    hours = ", ".join(sorted({commands[name][0] for name in dear}))
    return f"verified: {', '.join(proved)}; not verified: that {hours} give these bytes again, which takes their hours"


def main() -> None:
    os.chdir(checks.ROOT)
    try:
        print(verify())
    except (Finding, Refusal, ValueError, OSError) as error:
        sys.exit(f"verify: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
