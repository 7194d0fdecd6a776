"""Choices weighed by the stage `answer`, whose rows share their beginning, against lm-eval's own HF backend; both in
this run, each in a process of its own, on the same questions.

Run     python -m tests.perf.benchmarks MODEL FOLDER TASK SHOTS QUESTIONS     (FOLDER with questions.jsonl, shots.jsonl)
Prints  questions/s of each without the model's load, and their ratio: the median of three rounds taken in turn; and by
        how many nats the two differ at most in a choice's log-probability
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROUNDS = 3


def requests(model: Path, folder: Path, task: str, shots: int, number: int) -> list[dict[str, Any]]:
    """What `ask` writes."""
    from stages.benchmarks import ask, tasks

    entry = SimpleNamespace(shots=shots, chat=False, max_tokens=None)
    questions = tasks.chosen(tasks.documents(task, folder, "questions"), number)
    examples = tasks.documents(task, folder, "shots")
    return ask.rows(task, questions, examples, entry, model)


def ours(model: Path, rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Seconds, and every choice's log-probability."""
    from stages import shards
    from stages.benchmarks import answer
    from stages.signals import batching

    work = answer.Weigher(model, "float32", batching.Layout(2, 2048)).load()
    start = time.monotonic()
    made = [row for chunk in shards.cut(rows, answer.CHUNK) for row in work(chunk, lambda rows: None)]
    return time.monotonic() - start, [row["logprob"] for row in made]


def theirs(model: Path, rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """The same by lm-eval's backend, with the batch size that was fastest here."""
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(2)
    how: dict[str, Any] = {"pretrained": str(model), "dtype": "float32", "device": "cpu", "batch_size": 4}
    lm = HFLM(**how)
    asked = [
        Instance("loglikelihood", {}, (row["context"], row["continuation"]), place) for place, row in enumerate(rows)
    ]
    start = time.monotonic()
    found = lm.loglikelihood(asked)
    return time.monotonic() - start, [value for value, _ in found]


def measured(*words: str) -> tuple[float, list[float]]:
    """One of the two in a process of its own."""
    command = [sys.executable, "-m", "tests.perf.benchmarks", "--one", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1] == "--one":
        which, model, folder, task, shots, number = sys.argv[2:]
        rows = requests(Path(model), Path(folder), task, int(shots), int(number))
        print(json.dumps({"ours": ours, "theirs": theirs}[which](Path(model), rows)))
        return
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    values: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, each in rates.items():
            seconds, values[name] = measured(name, *sys.argv[1:])
            each.append(int(sys.argv[5]) / seconds)
        print({name: [round(rate, 2) for rate in each] for name, each in rates.items()}, flush=True)
    mine, its = (statistics.median(each) for each in rates.values())
    apart = max(abs(one - other) for one, other in zip(*values.values(), strict=True))
    print(f"{sys.argv[3]}: {mine:.2f} questions/s, lm-eval {its:.2f}, ratio {mine / its:.2f}; {apart:.1e} nats apart")


if __name__ == "__main__":
    main()
