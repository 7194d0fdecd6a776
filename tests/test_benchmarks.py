"""Benchmarks: asked in lm-eval's words, answered, graded; the same numbers as lm-eval's own HF backend gives."""

import gzip
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from stages import chat
from stages.benchmarks import answer, ask, grade, tasks
from stages.evaluation import benchmark_table
from stages.tools import benchmarks as tool
from tests.conftest import ROOT, sh

REAL = ROOT.parent / "shared/data/benchmarks"
real = pytest.mark.skipif(not REAL.exists(), reason="the published questions are not in this tree")
PUBLISHED = {
    "gsm8k": ("gsm8k_test", None),
    "arc": ("arc_challenge_test", "arc_challenge_dev"),
    "mmlu": ("mmlu_val", "mmlu_dev"),
    "truthfulqa": ("truthfulqa_817", None),
}
OWN = [
    {"question": "Which is a fruit?", "choices": ["an apple", "a stone"], "answer": "an apple"},
    {"question": "Which is a colour?", "choices": ["wood", "blue", "two"], "answer": "blue"},
]


def published(name: str, folder: Path) -> Path:
    """A benchmark's folder, as people lay it out."""
    folder = folder / name
    folder.mkdir(parents=True)
    for file, stored in zip(("questions", "shots"), PUBLISHED[name], strict=True):
        if stored:
            (folder / f"{file}.jsonl.gz").write_bytes((REAL / f"{stored}.jsonl.gz").read_bytes())
    return folder


def laid_out(rows: list[dict], folder: Path, name: str = "questions") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def entry(task: str, **changes):
    return SimpleNamespace(**({"task": task, "questions": None, "shots": 0, "chat": False, "max_tokens": 8} | changes))


def asked_of(model: Path, raw: Path, section, out: Path) -> list[dict]:
    ask.main(SimpleNamespace(benchmarks={"b": section}), "b", raw, model, asked=out)
    return pq.read_table(out).to_pylist()


def passed(model: Path, raw: Path, section, runtime, folder: Path) -> dict:
    """ask, answer, grade."""
    thinking = SimpleNamespace(thinking="keep")
    params = SimpleNamespace(benchmarks={"b": section}, dtype="float32", seed=1, runtime=runtime, generate=thinking)
    ask.main(params, "b", raw, model, asked=folder / "asked.parquet")
    answer.main(params, model, folder / "asked.parquet", answers=folder / "answers.parquet")
    grade.main(params, folder / "asked.parquet", folder / "answers.parquet", metrics=folder / "grades.json")
    return json.loads((folder / "grades.json").read_text(encoding="utf-8"))


def hub_row(name: str, row: dict) -> dict:
    """A line of the published file as the hub's data set has it, written here a second time."""
    if name == "arc":
        choices = row["question"]["choices"]
        texts, labels = [choice["text"] for choice in choices], [choice["label"] for choice in choices]
        wanted = {"question": row["question"]["stem"], "answerKey": row["answerKey"]}
        return wanted | {"choices": {"text": texts, "label": labels}}
    if name == "truthfulqa":
        right, wrong = (row[f"{kind} Answers"].split("; ") for kind in ("Correct", "Incorrect"))
        targets = {"choices": [*right, *wrong], "labels": [1] * len(right) + [0] * len(wrong)}
        return {"question": row["Question"], "mc1_targets": targets, "mc2_targets": targets}
    if name == "mmlu":
        return row | {"answer": "ABCD".index(row["answer"])}
    return row


def by_lm_eval(model: Path, raw: Path, name: str, section, asked: list[dict], folder: Path) -> dict[str, dict]:
    """metric and filter -> question -> score of lm-eval's own HF backend, which reads the asked ones of the published
    file as JSON through its own task file; nothing of `stages` takes part.
    """
    from lm_eval import evaluator
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks._yaml_loader import load_yaml

    shots = packed(raw / "shots.jsonl.gz") if section.task in ("arc_challenge", "mmlu") else []
    questions = [row for row in packed(raw / "questions.jsonl.gz") if hub_row(name, row)["question"] in asked]
    made = []
    for subject in sorted({row.get("subject", "") for row in questions}):
        those, examples = (
            [hub_row(name, r) for r in rows if r.get("subject", "") == subject] for rows in (questions, shots)
        )
        splits = {"test": those, "validation": those, "train": examples, "dev": examples}
        files = {}
        for split, rows in splits.items():
            if rows:
                files[split] = str(laid_out(rows, folder / f"hub{subject}", split) / f"{split}.jsonl")
        yaml = Path(str(evaluator.__file__)).parent / "tasks" / YAMLS[name].format(subject=subject)
        config = {key: value for key, value in load_yaml(yaml).items() if key not in ("tag", "task_alias")}
        config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        if not shots:
            config |= {"training_split": None, "fewshot_split": None}
        made.append(ConfigurableTask(config=config | {"num_fewshot": section.shots, "metadata": {}}))
        if section.task.startswith("gsm8k"):
            made[-1].set_config("generation_kwargs", {"max_gen_toks": section.max_tokens}, update=True)
    lm, found = HFLM(pretrained=str(model), dtype="float32", batch_size=4, device="cpu"), {}  # pyright: ignore
    result: Any = evaluator.simple_evaluate(model=lm, tasks=made, bootstrap_iters=0)
    for sample in (sample for samples in result["samples"].values() for sample in samples):
        for metric in sample["metrics"]:
            found.setdefault(f"{metric} {sample['filter']}", {})[sample["doc"]["question"]] = sample[metric]
    return found


def packed(file: Path) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().split("\n") if line]


YAMLS = {
    "gsm8k": "gsm8k/gsm8k-cot.yaml",
    "arc": "arc/arc_challenge.yaml",
    "mmlu": "mmlu/default/mmlu_{subject}.yaml",
    "truthfulqa": "truthfulqa/truthfulqa_mc2.yaml",
}
THEIRS = {
    "exact_match_strict": "exact_match strict-match",
    "exact_match_flexible": "exact_match flexible-extract",
    "acc": "acc none",
    "acc_norm": "acc_norm none",
}


@pytest.mark.slow
@real
@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("arc", entry("arc_challenge", questions=6, shots=2)),
        ("mmlu", entry("mmlu", questions=6, shots=1)),
        ("truthfulqa", entry("truthfulqa_mc2", questions=4)),
        ("gsm8k", entry("gsm8k_cot", questions=3, shots=1, max_tokens=12)),
    ],
)
def test_every_question_has_the_score_that_lm_evals_own_backend_gives(tiny_model, runtime, name, section, tmp_path):
    raw = published(name, tmp_path)
    mine = passed(tiny_model, raw, section, runtime, tmp_path)
    rows = pq.read_table(tmp_path / "asked.parquet").to_pylist()
    questions = {row["id"]: json.loads(row["document"])["question"] for row in rows}
    theirs = by_lm_eval(tiny_model, raw, name, section, list(questions.values()), tmp_path)
    assert len(mine["ids"]) == section.questions and {THEIRS[metric] for metric in mine["scores"]} == set(theirs)
    for metric, each in mine["scores"].items():
        wanted = [float(theirs[THEIRS[metric]][questions[name]]) for name in mine["ids"]]
        assert each == pytest.approx(wanted, abs=1e-3), metric


@real
@pytest.mark.parametrize(("name", "number"), [("gsm8k", 1319), ("arc", 1150), ("mmlu", 1531), ("truthfulqa", 817)])
def test_the_published_files_are_read_whole(name, number, tmp_path):
    raw = published(name, tmp_path)
    assert len(tasks.questions_of(tool.SLICES[name]["task"], raw)) == number


@real
def test_arc_is_asked_with_25_worked_examples_and_every_choice_is_a_row(tiny_model, tmp_path):
    section = entry("arc_challenge", questions=3, shots=25)
    rows = asked_of(tiny_model, published("arc", tmp_path), section, tmp_path / "a.parquet")
    assert {row["kind"] for row in rows} == {"loglikelihood"} and len({row["id"] for row in rows}) == 3
    for row in rows:
        assert row["context"].count("Question:") == 26 and row["context"].endswith("\nAnswer:")
        choices = json.loads(row["document"])["choices"]["text"]
        assert row["continuation"] == f" {choices[row['sample']]}"


def test_a_slice_is_chosen_by_the_questions_names_whatever_their_order():
    rows = [{"question": f"{k}?"} for k in range(40)]
    kept = tasks.chosen(rows, 7)
    assert len(kept) == 7 and {str(row) for row in tasks.chosen(rows[::-1], 7)} == {str(row) for row in kept}
    assert {str(row) for row in tasks.chosen(rows[:39], 7)} >= {str(row) for row in kept if row != rows[39]}
    assert tasks.chosen(rows, None) == rows


def test_a_benchmark_of_ones_own_is_graded_by_hand_made_answers(tiny_model, tmp_path):
    asked = asked_of(tiny_model, laid_out(OWN, tmp_path), entry("own"), tmp_path / "a.parquet")
    likely = {("apple", 0): -1.0, ("apple", 1): -3.0, ("blue", 0): -1.0, ("blue", 1): -2.0, ("blue", 2): -9.0}
    answers = [
        {
            "id": row["id"],
            "sample": row["sample"],
            "logprob": likely["apple" if "fruit" in row["document"] else "blue", row["sample"]],
            "completion": None,
            "finished": None,
            "tokens": 1,
        }
        for row in asked
    ]
    found = grade.graded(grade.joined(asked, answers))
    # of wood (4 letters, -1) and blue (4 letters, -2) the first is likelier either way
    assert found["scores"] == {"acc": [1.0, 0.0], "acc_norm": [1.0, 0.0]} and found["questions"] == 2
    with pytest.raises(ValueError, match=r"5 rows were asked, 4 answered, of question .* not all; run answer again"):
        grade.joined(asked, answers[:-1])


def test_a_written_answer_is_compared_without_case_and_the_empty_and_the_cut_off_are_counted(tiny_model, tmp_path):
    questions = [{"question": f"Name number {k}", "answer": "Blue"} for k in range(3)]
    asked = asked_of(tiny_model, laid_out(questions, tmp_path), entry("own"), tmp_path / "a.parquet")
    said = [(" blue", True), ("", True), (" blue and", False)]
    answers = [
        {"id": row["id"], "sample": 0, "logprob": None, "completion": text, "finished": finished, "tokens": 1}
        for row, (text, finished) in zip(asked, said, strict=True)
    ]
    found = grade.graded(grade.joined(asked, answers))
    assert found["scores"] == {"exact_match": [1.0, 0.0, 0.0]} and (found["empty"], found["cut_off"]) == (1, 1)


def test_a_sum_is_read_strictly_and_flexibly(tiny_model, tmp_path):
    questions = [{"question": f"{k} + 1?", "answer": f"It is so.\n#### {k + 1}"} for k in range(3)]
    asked = asked_of(tiny_model, laid_out(questions, tmp_path), entry("gsm8k_cot", shots=8), tmp_path / "a.parquet")
    said = [" 0 and 1 are 1. The answer is 1.", " 1 and 1 are 2", " The answer is 4."]
    answers = [
        {"id": row["id"], "sample": 0, "logprob": None, "completion": text, "finished": True, "tokens": 9}
        for row, text in zip(asked, said, strict=True)
    ]
    found = grade.graded(grade.joined(asked, answers))["scores"]
    assert found == {"exact_match_strict": [1.0, 0.0, 0.0], "exact_match_flexible": [1.0, 1.0, 0.0]}


def test_a_chat_template_stands_around_the_question_where_it_is_asked_for(tiny_model, tmp_path):
    raw, tokenizer = laid_out(OWN[:1], tmp_path), chat.load_tokenizer(tiny_model)
    (row, _) = asked_of(tiny_model, raw, entry("own", chat=True), tmp_path / "a.parquet")
    said = [{"role": "user", "content": "Question: Which is a fruit?\nAnswer:"}]
    assert answer.text_ids(tokenizer, row["context"]) == chat.prompt_ids(tokenizer, said)


@pytest.mark.parametrize(
    ("rows", "task", "told"),
    [
        ([OWN[0], OWN[0]], "own", "questions.jsonl: 'Which is a fruit\\?' stands there twice; ask it once"),
        ([{"question": "a"}], "own", r"questions.jsonl:1: a field 'answer' is missing, as own has it"),
        ([{"question": "a", "answer": 4}], "own", "answer = 4 must be a text that says something"),
        ([{"question": "a", "answer": "4", "choices": ["4", 5]}], "own", "choice 1 = 5 must be a text that says"),
        ([{"question": "a", "answer": "4", "choices": ["4", "4"]}], "own", "one stands there twice"),
        ([{"question": "a", "choices": ["b"], "answer": "c"}], "own", "answer 'c' is none of the choices"),
        ([{"question": "a", "answer": "b"}, OWN[0]], "own", "some questions have choices and some have none"),
        ([{"question": {"stem": "a", "choices": []}, "answerKey": "A"}], "arc_challenge", "answerKey 'A' is none of"),
        (
            [{"subject": "x", "question": "a", "choices": ["b"], "answer": "E"}],
            "mmlu",
            "1 choices and the answer 'E'; four choices",
        ),
        (
            [{"subject": "x", "question": "a", "choices": list("bcde"), "answer": ""}],
            "mmlu",
            "4 choices and the answer ''",
        ),
        ([{"subject": "x", "question": "a", "choices": list("bcde"), "answer": "A"}], "mmlu", "subject 'x' is none"),
        ([], "own", "no questions.jsonl, or an empty one; put the questions there"),
    ],
)
def test_a_file_that_cannot_be_asked_is_refused_with_its_line(rows, task, told, tiny_model, tmp_path):
    with pytest.raises(ValueError, match=told):
        asked_of(tiny_model, laid_out(rows, tmp_path), entry(task), tmp_path / "a.parquet")


def test_more_shots_than_there_are_and_a_line_that_is_no_json_are_refused(tiny_model, tmp_path):
    raw = laid_out(OWN, tmp_path)
    with pytest.raises(
        ValueError, match=r"own : shots = 2, and 0 worked examples are there; put more into shots.jsonl"
    ):
        asked_of(tiny_model, raw, entry("own", shots=2), tmp_path / "a.parquet")
    (raw / "questions.jsonl").write_text('{"question"\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"questions.jsonl:1: .* is no JSON object; mend it"):
        asked_of(tiny_model, raw, entry("own"), tmp_path / "a.parquet")


def test_a_question_over_the_context_is_refused_before_anything_is_loaded(tiny_model, tmp_path):
    raw = laid_out([OWN[0] | {"question": "why " * 400}], tmp_path)
    rows = asked_of(tiny_model, raw, entry("own"), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"of own takes \d+ tokens, the context of .* is 1024; lower its shots"):
        answer.check_room(tiny_model, rows)


def test_choices_share_a_beginning_by_question_or_by_subject_whichever_leaves_less_to_compute():
    """A subject's 100 shots once and 2 + 2 tokens of each of four choices; letters: 2 + 1 of each of two questions."""
    shots, asked = list(range(100)), [{"id": str(k // 2), "subject": "s"} for k in range(4)]
    by_question = [row["id"] for row in asked]
    same = [(shots + [k // 2, 7], [k, 3]) for k in range(4)]
    assert answer.sharing(same, asked) == ["s"] * 4
    assert (answer.computed(same, ["s"] * 4), answer.computed(same, by_question)) == (116, 214)
    letters = [(shots + [k // 2, 7], [k]) for k in range(4)]
    assert (answer.computed(letters, ["s"] * 4), answer.computed(letters, by_question)) == (106, 206)
    drawn_anew = [([k // 2] + shots, [k, 3]) for k in range(4)]
    assert answer.sharing(drawn_anew, asked) == ["0", "0", "1", "1"]


def test_a_choice_is_cut_where_the_question_would_end_alone(tiny_model):
    tokenizer = chat.load_tokenizer(tiny_model)
    question, choice = answer.choice_ids(tokenizer, "Answer: ", "two")
    assert tokenizer.decode(question) == "Answer:" and tokenizer.decode(choice) == " two"


def test_worked_examples_are_those_of_the_file_and_none_of_the_questions(tiny_model, tmp_path):
    examples = [{"question": f"Example {k}?", "choices": ["yes", "no"], "answer": "yes"} for k in range(3)]
    raw = laid_out(examples, laid_out(OWN, tmp_path), "shots")
    for row in asked_of(tiny_model, raw, entry("own", shots=2), tmp_path / "a.parquet"):
        assert row["context"].count("Example") == 2 and row["context"].count("Which is a") == 1
    laid_out([*examples, OWN[0]], raw, "shots")
    with pytest.raises(ValueError, match=r"a worked example in shots.jsonl is one of the questions; take it out"):
        asked_of(tiny_model, raw, entry("own", shots=2), tmp_path / "a.parquet")
    sums = laid_out([{"question": "1 + 1?", "answer": "#### 2"}], tmp_path / "sums")
    with pytest.raises(ValueError, match="shots = 9, and 8 worked examples are there"):
        asked_of(tiny_model, sums, entry("gsm8k_cot", shots=9), tmp_path / "a.parquet")
    laid_out([{"question": "2 + 2?", "answer": "#### 4"}], sums, "shots")
    with pytest.raises(ValueError, match=r"gsm8k_cot brings its own worked examples; take shots.jsonl away"):
        asked_of(tiny_model, sums, entry("gsm8k_cot", shots=1), tmp_path / "a.parquet")


def test_a_small_difference_of_shares_on_every_question_is_seen():
    """Two questions of 1 and -1 beside 40 of 0.05 would drown it."""
    pi0 = [0.4 + 0.001 * k for k in range(40)]
    more = [value + 0.05 + 0.02 * (-1) ** k for k, value in enumerate(pi0)]
    over = benchmark_table.compared(scored(pi0=pi0, pi1=more), "truthfulqa_mc2", 0.95)["over_pi0"]["pi1"]
    # the differences' spread is 0.02, of their mean 0.02 / sqrt(40) = 0.00316
    assert over["interval"] == [0.0438, 0.0562] and over["verdict"] == "higher"
    assert over["questions_for_5_points"] == math.ceil((1.959964 + 0.841621) ** 2 * 0.0004 / 0.0025)


def scored(**policies) -> dict:
    return {
        name: {"questions": len(values), "ids": list(range(len(values))), "scores": {"acc": values}}
        for name, values in policies.items()
    }


def test_scores_and_differences_have_intervals_by_hand():
    facts = benchmark_table.compared(scored(pi0=[1.0, 0.0, 0.0, 0.0], pi1=[1.0, 1.0, 0.0, 0.0]), "own", 0.95)
    # Wilson, 1 of 4: (0.25 + z^2/8 -+ z sqrt(0.25 0.75/4 + z^2/64)) / (1 + z^2/4) with z = 1.959964
    assert facts["policies"]["pi0"]["acc"] == {"value": 0.25, "interval": [0.0456, 0.6994]}
    # one question won, one won and one lost added: mean 1/6, variance 3/6 - 1/36, error sqrt(0.47222 / 6) = 0.28055
    over = facts["over_pi0"]["pi1"]
    assert over["difference"] == 0.25 and over["interval"] == [-0.3832, 0.7165] and over["p"] == 0.5525
    assert over["verdict"] == "no difference seen"
    assert over["questions_for_5_points"] == math.ceil((1.959964 + 0.841621) ** 2 * 0.4722222 / 0.0025)
    # two comparisons: the first of Holm's levels is 0.025, of which z = 2.241403
    three = benchmark_table.compared(
        scored(pi0=[1.0, 0.0, 0.0, 0.0], pi1=[1.0, 1.0, 0.0, 0.0], pi2=[1.0, 1.0, 0.0, 0.0]), "own", 0.95
    )["over_pi0"]["pi1"]
    assert three["questions_for_5_points"] == math.ceil((2.241403 + 0.841621) ** 2 * 0.4722222 / 0.0025)
    assert three["interval"] == over["interval"]


def test_no_difference_at_all_has_an_interval_and_many_comparisons_are_corrected():
    same = benchmark_table.compared(scored(pi0=[1.0] * 50, pi1=[1.0] * 50), "own", 0.95)
    assert same["policies"]["pi0"]["acc"]["interval"] == [0.9287, 1.0]
    low, high = same["over_pi0"]["pi1"]["interval"]
    assert -0.06 < low < 0 < high < 0.06
    won = [0.0] * 40 + [1.0] * 10
    worse, better = [0.0] * 50, [1.0] * 10 + won[10:]
    facts = benchmark_table.compared(scored(pi0=won, offline=worse, pi1=better, pi2=won), "own", 0.95)["over_pi0"]
    assert [facts[name]["verdict"] for name in ("offline", "pi1", "pi2")] == ["lower", "higher", "no difference seen"]
    assert all(each["p_holm"] >= each["p"] for each in facts.values())


def test_policies_that_answered_other_questions_are_not_paired(tmp_path):
    for name, ids in (("pi0", ["a", "b"]), ("pi1", ["b", "a"])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"ids": ids}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"pi1 answered other questions of .* than pi0, which cannot be paired"):
        benchmark_table.read(tmp_path, ["pi0", "pi1"])


def test_questions_may_be_packed_and_hold_any_line_separator(tmp_path):
    row = {"question": "a\u2028b\x85c", "answer": "d"}
    packed = gzip.compress(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    (tmp_path / "questions.jsonl.gz").write_bytes(packed)
    assert tasks.documents("own", tmp_path, "questions") == [row | {"choices": []}]
    (tmp_path / "questions.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"both questions.jsonl and questions.jsonl.gz are there; keep one"):
        tasks.documents("own", tmp_path, "questions")
    (tmp_path / "questions.jsonl").unlink()
    (tmp_path / "questions.jsonl.gz").write_bytes(packed[:-9])
    with pytest.raises(ValueError, match=r"questions.jsonl.gz: .* the file is cut off or damaged, copy it again"):
        tasks.documents("own", tmp_path, "questions")


def test_a_pinned_data_set_of_the_hub_is_asked_as_its_files_are(tmp_path, monkeypatch):
    import datasets

    targets = {"choices": ["yes", "no"], "labels": [1, 0]}
    row = {"question": "Why?", "mc1_targets": targets, "mc2_targets": targets}
    wanted: list = []

    def load(*names: str, **how: Any) -> datasets.Dataset:
        wanted.append((*names, how["split"], how["revision"]))
        return datasets.Dataset.from_list([row])

    monkeypatch.setattr(datasets, "load_dataset", load)
    pin = {"dataset": "truthfulqa/truthful_qa", "config": "multiple_choice", "split": "validation"}
    (tmp_path / "questions.json").write_text(json.dumps(pin | {"revision": "a" * 40}), encoding="utf-8")
    assert tasks.questions_of("truthfulqa_mc2", tmp_path) == [row]
    assert wanted == [("truthfulqa/truthful_qa", "multiple_choice", "validation", "a" * 40)]
    (tmp_path / "questions.json").write_text(json.dumps(pin), encoding="utf-8")
    with pytest.raises(ValueError, match=r"must name dataset, split and the 40-digit commit as revision"):
        tasks.questions_of("truthfulqa_mc2", tmp_path)


def test_a_template_without_a_system_role_is_told_or_folded(tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    file = model / "chat_template.jinja"
    file.write_text(refusing + file.read_text(encoding="utf-8"), encoding="utf-8")
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    with pytest.raises(ValueError, match=r"refuses system user \(no system\); set system_role: fold in bases, or chat"):
        ask.written_by(model)(said)
    facts = json.loads((model / "text_contract.json").read_text(encoding="utf-8"))
    (model / "text_contract.json").write_text(json.dumps(facts | {"fold_system": True}), encoding="utf-8")
    assert "user\nBe brief.\n\nWhy?" in ask.written_by(model)(said)


@pytest.mark.slow
def test_every_policy_of_a_finished_run_is_asked_once_and_params_stay_as_they_were(own_smoke):
    shutil.rmtree(own_smoke / "data/raw/tasks/instructions")
    laid_out(OWN, own_smoke / "data/raw/tasks/mine")
    before = (own_smoke / "params.yaml").read_bytes()
    done = sh("python -m stages.tools.benchmarks", own_smoke)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "2 questions of mine." in done.stdout and "| mine | π0 (SFT) | offline DPO | π1 | π2 |" in done.stdout
    assert "| policy | acc over π0 | p | p (Holm) | verdict | questions to see 5 points |" in done.stdout
    assert (own_smoke / "params.yaml").read_bytes() == before
    assert sh("dvc status", own_smoke).stdout.strip() == "Data and pipelines are up to date."

    (own_smoke / "data/raw/tasks/mine/questions.jsonl").unlink()
    told = sh("python -m stages.tools.benchmarks", own_smoke).stderr
    assert "no data/raw/tasks/<name>/questions.jsonl is there; put one there" in told
    settings = (
        "benchmarks={mine: {task: own, raw: data/raw/tasks/mine, questions: 0, shots: 0, chat: false, max_tokens: 8}}"
    )
    wrong = sh(f"python -m stages.tools.profile smoke '{settings}'", own_smoke).stderr
    assert "benchmarks.mine.questions = 0" in wrong
