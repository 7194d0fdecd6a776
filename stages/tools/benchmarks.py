"""Ask every policy the benchmarks whose questions lie here, grade the answers, and print the tables.

    python -m stages.tools.benchmarks          (or: make benchmarks)

The questions of a benchmark are data/raw/tasks/<name>/questions.jsonl, its worked examples shots.jsonl beside it,
either also as .gz. For the time of the run params.yaml has them in use, beside those that stand there already; it is
put back as it was. HumanEval and MBPP, whose answers are programs that are run, are asked only where they stand there.
The results stay: metrics/benchmarks/ in git, the answers in the cache, so that a second run asks nothing.
"""

import sys
from pathlib import Path
from typing import Any

from stages.tools import in_use

QUESTIONS = Path("data/raw/tasks")
SLICES: dict[str, dict[str, Any]] = {
    "gsm8k": {"task": "gsm8k_cot", "questions": 16, "shots": 8, "max_tokens": 128},
    "arc": {"task": "arc_challenge", "questions": 32, "shots": 25, "max_tokens": None},
    "mmlu": {"task": "mmlu", "questions": 48, "shots": 5, "max_tokens": None},
    "ifeval": {"task": "ifeval", "questions": 24, "shots": 0, "chat": True, "max_tokens": 256},
    "instructions": {"task": "ifeval", "questions": 24, "shots": 0, "chat": True, "max_tokens": 256},
    "truthfulqa": {"task": "truthfulqa_mc2", "questions": 80, "shots": 0, "max_tokens": None},
}
"""How much is asked on two cores; the paper's shots. Others are of one's own."""
PROGRAMS = ("humaneval", "mbpp")
OWN = {"task": "own", "questions": None, "shots": 0, "max_tokens": 64}


def those_here(tree: Any) -> None:
    """Put every benchmark in use whose questions are here, in the tree of params.yaml.

    Raises ValueError where there are none.
    """
    folders = {
        path.parent for name in ("questions.jsonl", "questions.jsonl.gz") for path in QUESTIONS.glob(f"*/{name}")
    }
    for folder in sorted(folders):
        if folder.name in PROGRAMS and folder.name not in tree["benchmarks"]:
            told = "its answers are programs, which are run only where params.yaml names it"
            print(f"benchmarks: {folder} is left out: {told}; see docs/benchmarks.md")
            continue
        entry = {"raw": str(folder), "chat": False} | SLICES.get(folder.name, OWN)
        tree["benchmarks"].setdefault(folder.name, entry)
    if not tree["benchmarks"]:
        raise ValueError(f"no benchmark is in use, and no {QUESTIONS}/<name>/questions.jsonl is there; put one there")


def main() -> None:
    try:
        with in_use.in_use(those_here) as params:
            names = list(params.benchmarks)
            code = in_use.repro([f"benchmark_table@{name}" for name in names])
    except ValueError as error:
        sys.exit(f"benchmarks: {error}")
    if code:
        sys.exit(f"benchmarks: dvc repro ended with {code}; its own message stands above")
    for name in names:
        print(Path(f"metrics/benchmarks/{name}.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
