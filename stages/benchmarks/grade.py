"""Score a policy's stored answers to a benchmark, by lm-eval's own graders; no model is loaded. Programs are run with
their tests, in a sandbox alone.

Reads   asked: rows of stages/benchmarks/ask.py; answers: rows of stages/benchmarks/answer.py
Writes  metrics: {questions; of written answers, how many are empty and how many were cut off; of programs, how many did
        not pass, and how; ids; scores: {metric: one of each question, in the order of ids}}. Where lm-eval reads an
        answer in several ways, as GSM8K strictly and flexibly, each is a metric
Params  sandbox: seconds and memory_mib of a program
Source  stages/benchmarks/tasks.py, stages/benchmarks/programs.py
"""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages.benchmarks import programs, sandbox, tasks

COUNTED = ("empty", "cut_off", *sandbox.OUTCOMES[1:])
"""What the summary line says of answers, where there are any."""


def joined(asked: list[dict], answers: list[dict]) -> list[dict]:
    """Rows with their answers. Raises ValueError unless every row has one."""
    found = {(row["id"], row["sample"]): row for row in answers}
    missing = [row["id"] for row in asked if (row["id"], row["sample"]) not in found]
    if missing or len(answers) != len(asked):
        told = f"{len(asked)} rows were asked, {len(answers)} answered, of question {(missing or ['none'])[0]} not all"
        raise ValueError(f"{told}; run answer again")
    return [row | found[row["id"], row["sample"]] for row in asked]


def scores(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Metric -> question -> score, of the rows of one task and subject."""
    documents = {row["id"]: json.loads(row["document"]) for row in rows}
    task = tasks.built(rows[0]["task"], rows[0]["subject"], list(documents.values()), [], 0)
    answered = {(row["id"], row["sample"]): row for row in rows}
    requests: dict[str, list[Any]] = {}
    for instance in task.instances:
        row = answered[tasks.identity(instance.doc), instance.idx]
        instance.resps.append(row["completion"] if row["logprob"] is None else (row["logprob"], False))
        requests.setdefault(row["id"], []).append(instance)
    task.apply_filters()
    ways, found = list(task.instances[0].filtered_resps), {}
    for way in ways:
        for name, instances in requests.items():
            graded = task.process_results(documents[name], [instance.filtered_resps[way] for instance in instances])
            for metric, value in graded.items():
                found.setdefault(called(metric, way, len(ways)), {})[name] = float(value)
    return found


def called(metric: str, way: str, ways: int) -> str:
    """A metric's name, with the way in which the answer was read where there are several."""
    short = way.removesuffix("-extract").removesuffix("-match")
    return metric if ways == 1 else f"{metric}_{short}"


def by_lm_eval(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Metric -> question -> score, of the rows of one task."""
    found: dict[str, dict[str, float]] = {}
    for subject in dict.fromkeys(row["subject"] for row in rows):
        for metric, each in scores([row for row in rows if row["subject"] == subject]).items():
            found.setdefault(metric, {}).update(each)
    return found


def graded(rows: list[dict], outcomes: dict[str, str] | None = None) -> dict[str, Any]:
    """The stage's metrics; `outcomes` of programs that were run, by question."""
    ids = list(dict.fromkeys(row["id"] for row in rows))
    found = programs.scores(outcomes) if outcomes else by_lm_eval(rows)
    facts: dict[str, Any] = {"questions": len(ids)}
    written = [row for row in rows if row["completion"] is not None]
    if written:
        empty = sum(not row["completion"].strip() for row in written)
        facts |= {"empty": empty, "cut_off": sum(not row["finished"] for row in written)}
    if outcomes:
        facts |= programs.counted(outcomes)
    return facts | {"ids": ids, "scores": {metric: [each[name] for name in ids] for metric, each in found.items()}}


def main(params: Any, asked: Path, answers: Path, *, metrics: Path) -> None:
    rows = joined(pq.read_table(asked).to_pylist(), pq.read_table(answers).to_pylist())
    outcomes = programs.outcomes(rows, params.sandbox) if rows[0]["task"] in programs.FILES else None
    facts = graded(rows, outcomes)
    metrics.write_text(json.dumps(facts) + "\n", encoding="utf-8")
    means = {metric: round(sum(each) / len(each), 4) for metric, each in facts["scores"].items()}
    odd = [f"{facts[name]} {name}" for name in COUNTED if facts.get(name)]
    told = ", ".join([str(means), *odd])
    print(f"grade {metrics.stem}: {facts['questions']} questions, {told}")
