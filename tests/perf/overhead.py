"""What the fingerprint and the guard cost: a `dvc repro` that has nothing to do, and the start of a CPU stage, each
against bare DVC and bare Python.

Run     python tests/perf/overhead.py   (in a clone where `dvc repro` has run)
Prints  medians of five rounds taken in turn, and their ratios or differences

The bare graph is the same one without the stage `fingerprint` and without code keys, in a hard-linked copy of the
whole clone.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

ROUNDS = 5
yaml = YAML()
IDLE = ["dvc", "--wait-for-lock", "repro", "--quiet"]
SCORES = "data/scores/reward_model/pi0"
BARE = f"""
import sys
from pathlib import Path
from stages.guard import params
from stages.pairs import rank
pairs, metrics = map(Path, sys.argv[1:])
rank.main(params.load(Path("params.yaml")), Path("{SCORES}"), "pi0", pairs=pairs, metrics=metrics)
"""


def bare_copy(folder: Path) -> None:
    """The clone, its files hard-linked, with a graph that knows no code keys."""
    left_out = shutil.ignore_patterns(".venv", ".git", "tmp", ".scratch")
    shutil.copytree(".", folder, copy_function=os.link, symlinks=True, ignore=left_out)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    for name in ("dvc.yaml", "dvc.lock"):
        text = yaml.load(folder / name)
        text["stages"].pop("fingerprint", None)
        for stage in text["stages"].values():
            strip(stage.get("do", stage))
        (folder / name).unlink()
        yaml.dump(text, folder / name)


def strip(stage: dict) -> None:
    """Take the code keys out of a stage of dvc.yaml (a list of params) or of dvc.lock (a mapping)."""
    params = stage.get("params")
    if isinstance(params, list):
        stage["params"] = [p for p in params if not (isinstance(p, dict) and "code.lock.yaml" in p)]
    elif params:
        params.pop("code.lock.yaml", None)
    if not stage.get("params", True):
        del stage["params"]


def seconds(command: list[str], folder: Path) -> float:
    start = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.monotonic() - start


def in_turn(commands: list[tuple[list[str], Path]]) -> list[float]:
    """The median seconds of each command over ROUNDS rounds, after one round to warm up."""
    rounds = [[seconds(command, folder) for command, folder in commands] for _ in range(ROUNDS + 1)][1:]
    return [statistics.median(values) for values in zip(*rounds, strict=True)]


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".scratch") as scratch:
        folder = Path(scratch) / "bare"
        bare_copy(folder)
        ours, bare = in_turn([(IDLE, Path()), (IDLE, folder)])
        ratio = f"ratio {ours / bare:.2f}"
        print(f"a repro with nothing to do: {ours:.2f} s, bare DVC on the same graph {bare:.2f} s, {ratio}")
        pairs, metrics = f"{scratch}/a.parquet", f"{scratch}/b.json"
        words = ["--scores", SCORES, "--iteration", "pi0", "--pairs", pairs, "--metrics", metrics]
        guarded = [sys.executable, "-m", "stages.guard.run", "pairs.rank", *words]
        unguarded = [sys.executable, "-c", BARE, pairs, metrics]
        ours, bare = in_turn([(guarded, Path()), (unguarded, Path())])
        print(f"the CPU stage `rank`: {ours:.2f} s guarded, {bare:.2f} s bare; the guard costs {ours - bare:.2f} s")


if __name__ == "__main__":
    main()
