"""HumanEval and MBPP: asked in lm-eval's words, graded by their own tests in the sandbox."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from stages.benchmarks import answer, ask, grade, programs, sandbox, tasks
from stages.evaluation import benchmark_table
from stages.tools import benchmarks as tool
from stages.tools import in_use
from tests.conftest import ROOT
from tests.test_sandbox import here

REAL = ROOT.parent / "shared/data/benchmarks"
real = pytest.mark.skipif(not REAL.exists(), reason="the published questions are not in this tree")
PUBLISHED = {"humaneval": "humaneval_164.jsonl.gz", "mbpp": "mbpp_974.jsonl.gz"}
ALLOWED = SimpleNamespace(seconds=10, memory_mib=512)
DOUBLE = {
    "task_id": "mine/0",
    "prompt": "def double(n):\n",
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(2) == 4",
}


def published(name: str) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress((REAL / PUBLISHED[name]).read_bytes()).splitlines()]


def laid_out(rows: list[dict], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def asked_of(model: Path, task: str, raw: Path, out: Path, shots: int = 0) -> list[dict]:
    entry = SimpleNamespace(task=task, questions=None, shots=shots, chat=False, max_tokens=None)
    ask.main(SimpleNamespace(benchmarks={"b": entry}), "b", raw, model, asked=out)
    return pq.read_table(out).to_pylist()


def settings(task: str) -> dict:
    """lm-eval's YAML file, its helpers left as their names."""
    import lm_eval.tasks

    file = Path(str(lm_eval.tasks.__file__)).parent / task / f"{task}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8").replace("!function ", ""))


@here
@real
@pytest.mark.parametrize(("task", "number", "limit"), [("humaneval", 164, 1024), ("mbpp", 500, 256)])
def test_prompts_and_stops_are_those_of_lm_evals_yaml(task, number, limit, tiny_model, tmp_path, capsys):
    rows, theirs = published(task), settings(task)
    made = asked_of(tiny_model, task, laid_out(rows, tmp_path / "raw"), tmp_path / "a.parquet")
    text = jinja2.Template(theirs["doc_to_text"], keep_trailing_newline=True)
    wanted = [row for row in rows if task == "humaneval" or 11 <= row["task_id"] <= 510]
    assert [row["context"] for row in made] == [text.render(**row) for row in wanted] and len(made) == number
    for row in made:
        assert row["until"] == theirs["generation_kwargs"]["until"] and row["kind"] == "generate_until"
        assert (row["max_tokens"], row["temperature"]) == (limit, 0.0)
    assert f"ask b: {number} of {len(rows)} questions, 0 shots" in capsys.readouterr().out


@here
@real
def test_the_worked_examples_of_mbpp_are_lm_evals_own(tiny_model, tmp_path):
    raw = laid_out(published("mbpp")[10:13], tmp_path / "raw")
    for row in asked_of(tiny_model, "mbpp", raw, tmp_path / "a.parquet", shots=3):
        first, second, third, own = row["context"].split("You are an expert Python programmer")[1:]
        assert "similar elements from the given two tuple lists" in first and "non-prime numbers" in second
        assert "using heap queue algorithm" in third and own.endswith("[BEGIN]\n") and "[DONE]" not in own
        code = "def similar_elements(test_tup1, test_tup2):\r\n  res = tuple(set(test_tup1) & set(test_tup2))"
        assert f"[BEGIN]\n{code}\r\n  return (res) \n[DONE]" in first
    with pytest.raises(ValueError, match="shots = 4, and 3 worked examples are there"):
        asked_of(tiny_model, "mbpp", raw, tmp_path / "a.parquet", shots=4)


def outcomes(task: str, rows: list[dict], answers: list[str]) -> list[str]:
    stored = [
        {"id": str(row["task_id"]), "task": task, "document": json.dumps(tasks.FORMS[task](row)), "completion": text}
        for row, text in zip(rows, answers, strict=True)
    ]
    return list(programs.outcomes(stored, ALLOWED).values())


@here
@real
@pytest.mark.slow
def test_every_canonical_solution_of_humaneval_passes_and_a_broken_one_fails():
    rows = published("humaneval")
    assert outcomes("humaneval", rows, [row["canonical_solution"] for row in rows]) == ["passed"] * 164
    assert set(outcomes("humaneval", rows[::20], ["    return None\n"] * 9)) == {"failed"}


@here
@real
def test_reference_codes_of_mbpp_pass_and_broken_ones_fail():
    """Every 80th and the two with a set-up; all 974 passed on 2026-11-27."""
    rows = [row for row in published("mbpp") if row["task_id"] % 80 == 0 or row["test_setup_code"]]
    assert outcomes("mbpp", rows, [row["code"] for row in rows]) == ["passed"] * 14
    broken = [row["code"].replace("return", "return None and") for row in rows[:5]]
    assert outcomes("mbpp", rows[:5], broken) == ["failed"] * 5


SAID = {
    "passed": "    return 2 * n\n",
    "failed": "    return n\n",
    "timed_out": "    while True: pass\n",
    "over_memory": "    return [0] * 10**10\n",
    "no_program": "return Certainly! Here is\n",
}


@here
def test_answers_are_graded_and_counted_by_how_they_end(tiny_model, tmp_path, capsys):
    questions = [DOUBLE | {"task_id": f"mine/{k}"} for k in range(6)]
    asked = asked_of(tiny_model, "humaneval", laid_out(questions, tmp_path / "raw"), tmp_path / "asked.parquet")
    answers = [
        {"id": row["id"], "sample": 0, "completion": text, "finished": True, "tokens": 9}
        for row, text in zip(asked, [*SAID.values(), "  "], strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(answers, answer.SCHEMA), tmp_path / "answers.parquet")
    params, out = SimpleNamespace(sandbox=SimpleNamespace(seconds=1, memory_mib=256)), tmp_path / "pi0.json"
    grade.main(params, tmp_path / "asked.parquet", tmp_path / "answers.parquet", metrics=out)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["scores"] == {"pass_at_1": [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]} and found["empty"] == 1
    assert {name: found[name] for name in sandbox.OUTCOMES[1:]} == {
        "failed": 1,
        "timed_out": 1,
        "over_memory": 1,
        "no_program": 2,
    }
    told = "{'pass_at_1': 0.1667}, 1 empty, 1 failed, 1 timed_out, 1 over_memory, 2 no_program"
    assert f"grade pi0: 6 questions, {told}" in capsys.readouterr().out
    facts = benchmark_table.compared({"pi0": found, "pi1": found}, "humaneval", 0.95)
    (_, rows), _ = benchmark_table.tables("mine", facts)
    assert ["timed_out", "1", "1"] in rows and rows[0][0] == "pass_at_1" and rows[0][1].startswith("0.167 [")


def test_without_a_sandbox_nothing_is_asked_and_nothing_graded(tiny_model, tmp_path, monkeypatch):
    raw, row = laid_out([DOUBLE], tmp_path / "raw"), {"id": "a", "task": "humaneval"}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="install the package bubblewrap"):
        asked_of(tiny_model, "humaneval", raw, tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="install the package bubblewrap"):
        programs.outcomes([row | {"document": json.dumps(DOUBLE), "completion": SAID["passed"]}], ALLOWED)
    assert not (tmp_path / "a.parquet").exists()


@here
@pytest.mark.parametrize(
    ("rows", "task", "told"),
    [
        ([DOUBLE, DOUBLE], "humaneval", "'mine/0' stands there twice; ask it once"),
        ([{"task_id": 1, "prompt": "x"}], "humaneval", "a field 'entry_point' is missing, as humaneval has it"),
        ([{"task_id": 11, "text": "x", "test_list": ["assert x"]}], "mbpp", "1 tests; three are wanted"),
    ],
)
def test_a_file_of_another_form_is_refused(rows, task, told, tiny_model, tmp_path):
    with pytest.raises(ValueError, match=told):
        asked_of(tiny_model, task, laid_out(rows, tmp_path / "raw"), tmp_path / "a.parquet")


def test_programs_are_asked_for_only_where_params_name_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("humaneval", "mbpp", "mine"):
        laid_out([{}], tmp_path / "data/raw/tasks" / name)
    entry = "{task: humaneval, raw: data/raw/tasks/humaneval, questions: null, shots: 0, chat: false, max_tokens: null}"
    text = in_use.edited(f"benchmarks:\n  humaneval: {entry}\n", tool.those_here)
    assert list(yaml.safe_load(text)["benchmarks"]) == ["humaneval", "mine"]
    assert capsys.readouterr().out == (
        "benchmarks: data/raw/tasks/mbpp is left out: its answers are programs, which are run only where params.yaml"
        " names it; see docs/benchmarks.md\n"
    )
