"""lm-eval's tasks over questions that lie here: what is asked, in which words, and how an answer is scored.

`ask` and `grade` share it. The words, shots and scores are lm-eval's own (0.4.13), read from its YAML files; the
questions come from `questions.jsonl` of a folder, the worked examples from `shots.jsonl` beside it (stored.py):

        gsm8k_cot, gsm8k      question, answer (GSM8K as published); gsm8k_cot brings its own eight examples
        arc_challenge         question {stem, choices [{text, label}]}, answerKey (AI2's), or the hub's form
        mmlu                  subject, question, choices, answer (A to D, or 0 to 3); shots by subject
        truthfulqa_mc2        Question, Correct Answers, Incorrect Answers, each joined by "; " (the published CSV), or
                              the hub's form
        humaneval, mbpp       as published (stages/benchmarks/programs.py)
        ifeval                key, prompt, instruction_id_list, kwargs (stages/benchmarks/instructions.py)
        own                   question, answer, and choices where the answer is one of them; else the answer is written

Source  https://github.com/EleutherAI/lm-evaluation-harness, lm_eval/tasks and lm_eval/api/task.py
"""

import contextlib
import hashlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.benchmarks import instructions, programs, stored

SHOTS_SEED = 1234
"""lm-eval's own, for tasks whose examples are drawn anew for each question."""
FILES = {
    "gsm8k_cot": "gsm8k/gsm8k-cot.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
    "mmlu": "mmlu/default/mmlu_{subject}.yaml",
}
OWN = {
    "task": "own",
    "test_split": "test",
    "training_split": "train",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{choices.index(answer) if choices else answer}}",
}
OWN_CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_choice": "{{choices}}",
    "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
}
OWN_TEXT = {
    "output_type": "generate_until",
    "generation_kwargs": {"until": ["\n", "Question:"], "do_sample": False},
    "filter_list": [{"name": "stripped", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
    "metric_list": [
        {
            "metric": "exact_match",
            "aggregation": "mean",
            "higher_is_better": True,
            "ignore_case": True,
            "ignore_punctuation": True,
        }
    ],
}


def as_arc(row: dict) -> dict:
    if isinstance(row["question"], str):
        return row
    choices = {name: [choice[name] for choice in row["question"]["choices"]] for name in ("text", "label")}
    if row["answerKey"] not in choices["label"]:
        raise ValueError(f"answerKey {row['answerKey']!r} is none of {choices['label']}")
    return {"question": row["question"]["stem"], "choices": choices, "answerKey": row["answerKey"]}


def as_mmlu(row: dict) -> dict:
    places = {letter: place for place, letter in enumerate("ABCD")} | {place: place for place in range(4)}
    if len(row["choices"]) != 4 or row["answer"] not in places:
        told = f"{len(row['choices'])} choices and the answer {row['answer']!r}"
        raise ValueError(f"{told}; four choices are wanted, and an answer of A to D or 0 to 3")
    answer = places[row["answer"]]
    return {name: row[name] for name in ("subject", "question", "choices")} | {"answer": answer}


def as_truthfulqa(row: dict) -> dict:
    if "mc2_targets" in row:
        return {name: row[name] for name in ("question", "mc1_targets", "mc2_targets")}
    true, false = ([text.strip() for text in row[f"{kind} Answers"].split(";")] for kind in ("Correct", "Incorrect"))
    sides = {text: label for label, texts in ((0, false), (1, true)) for text in texts if text}
    ordered = sorted(sides, key=lambda text: -sides[text])
    targets = {"choices": ordered, "labels": [sides[text] for text in ordered]}
    return {"question": row["Question"], "mc1_targets": targets, "mc2_targets": targets}


def as_own(row: dict) -> dict:
    choices = row.get("choices") or []
    words = {"question": row["question"], "answer": row["answer"]} | {f"choice {k}": c for k, c in enumerate(choices)}
    for name, value in words.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name} = {value!r} must be a text that says something")
    if choices and row["answer"] not in choices:
        raise ValueError(f"answer {row['answer']!r} is none of the choices {choices}")
    if len(set(choices)) < len(choices):
        raise ValueError(f"choices {choices}: one stands there twice")
    return {"question": row["question"], "answer": row["answer"], "choices": choices}


def as_gsm8k(row: dict) -> dict:
    return {name: row[name] for name in ("question", "answer")}


FORMS: dict[str, Callable[[dict], dict]] = {
    "gsm8k_cot": as_gsm8k,
    "gsm8k": as_gsm8k,
    "arc_challenge": as_arc,
    "truthfulqa_mc2": as_truthfulqa,
    "mmlu": as_mmlu,
    "humaneval": programs.as_humaneval,
    "mbpp": programs.as_mbpp,
    "ifeval": instructions.as_ifeval,
    "own": as_own,
}


def documents(task: str, folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a file in lm-eval's form. Raises ValueError for one of another form."""
    return stored.shaped(folder, name, FORMS[task], f"as {task} has it")


def questions_of(task: str, folder: Path) -> list[dict[str, Any]]:
    """Of questions.jsonl. Raises ValueError for one that stands there twice, or where there is none."""
    found = documents(task, folder, "questions")
    told = [str(next(document[n] for n in ("question", "task_id", "prompt") if n in document)) for document in found]
    stored.check_once(folder, [(name, identity(document)) for name, document in zip(told, found, strict=True)])
    return found


def identity(document: dict) -> str:
    """16 hex digits that name a question."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def chosen(questions: list[dict], number: int | None) -> list[dict]:
    """So many questions, by their names."""
    return stored.chosen(questions, number, identity)


def parts(task: str, questions: list[dict]) -> dict[str, list[dict]]:
    """Questions by what words introduce them: MMLU has a task for each subject."""
    if task != "mmlu":
        return {"": questions}
    return {
        subject: [row for row in questions if row["subject"] == subject]
        for subject in sorted({row["subject"] for row in questions})
    }


def configured(task: str, subject: str, questions: list[dict]) -> dict[str, Any]:
    """lm-eval's own settings of a task. Raises ValueError for a subject that it does not know."""
    from lm_eval import tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    if task == "own":
        if len({bool(row["choices"]) for row in questions}) > 1:
            raise ValueError("some questions have choices and some have none; make two benchmarks of them")
        return OWN | (OWN_CHOICES if questions[0]["choices"] else OWN_TEXT)
    folder = Path(str(tasks.__file__)).parent
    if task in programs.FILES:
        return programs.configured(task, folder)
    if task == "ifeval":
        return instructions.configured(folder)
    file = folder / FILES[task].format(subject=subject)
    if not file.exists():
        raise ValueError(f"subject {subject!r} is none of lm-eval's {task}; mend the questions' `subject`")
    return {name: value for name, value in load_yaml(file).items() if name not in ("tag", "task_alias")}


def built(task: str, subject: str, questions: list[dict], shots: list[dict], number: int, **how: Any) -> Any:
    """A task of lm-eval with these questions as its requests, `number` worked examples before each; `how` is lm-eval's
    for a chat template.

    Raises ValueError where there are fewer, where one of them is asked, or where the task brings its own.
    """
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    config = configured(task, subject, questions)
    own = (config.get("fewshot_config") or {}).get("samples") or []
    if shots and (own or task == "truthfulqa_mc2"):
        raise ValueError(f"{task} brings its own worked examples; take shots.jsonl away, or name another task")
    asked = {identity(document) for document in questions}
    if any(identity(shot) in asked for shot in shots):
        raise ValueError(f"{task} {subject}: a worked example in shots.jsonl is one of the questions; take it out")
    if number > len(shots or own):
        told = f"shots = {number}, and {len(shots or own)} worked examples are there"
        raise ValueError(f"{task} {subject}: {told}; put more into shots.jsonl beside the questions, or lower it")
    splits = {"test": questions, "train": shots, "dev": shots, "validation": questions}
    data = {name: Dataset.from_list(rows) for name, rows in splits.items() if rows}
    config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {}, "num_fewshot": number}
    if not shots:
        config |= {"training_split": None, "fewshot_split": None}
    made = ConfigurableTask(config=config | {"custom_dataset": lambda **_: data, "metadata": {}})
    made.set_fewshot_seed(SHOTS_SEED)
    random.seed(0)  # as simple_evaluate does
    with contextlib.redirect_stderr(io.StringIO()):  # a bar of milliseconds
        made.build_all_requests(**how)
    return made
