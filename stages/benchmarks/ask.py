"""Turn a benchmark into rows: what is asked, how it is answered, and what the grader needs.

Reads   raw: a folder with questions.jsonl and perhaps shots.jsonl (stages/benchmarks/tasks.py); model: the policies'
        base model, whose tokenizer writes the chat template; `name` of the entry in benchmarks
Writes  asked: one row for each text to write, or for each choice to weigh (SCHEMA)
Params  benchmarks.<name>: task; questions, how many (null for all); shots, worked examples before each question; chat,
        whether the model's chat template stands around them, the shots as turns; max_tokens of a written answer (null
        for lm-eval's own limit, 256 where it names none)
Source  stages/benchmarks/tasks.py
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import chat
from stages.benchmarks import programs, sandbox, tasks

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # of the question
        ("sample", pa.int32()),  # of its choices; 0 for a text
        ("task", pa.string()),  # lm-eval's
        ("subject", pa.string()),  # of MMLU; "" in the others
        ("kind", pa.string()),  # loglikelihood of `continuation`, or generate_until one of `until`
        ("context", pa.string()),
        ("continuation", pa.string()),
        ("until", pa.list_(pa.string())),
        ("max_tokens", pa.int32()),
        ("temperature", pa.float64()),
        ("document", pa.string()),  # JSON, for the grader
    ]
)
LIMIT = 256
"""Tokens of a written answer where a task names none: lm-eval's."""


def folded(conversation: list[dict]) -> list[dict]:
    """With what the system says at the beginning of the first user turn."""
    first, *rest = conversation
    if first["role"] != "system" or not rest:
        return conversation
    return [{"role": "user", "content": f"{first['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def written_by(model: Path) -> Any:
    """lm-eval's way to ask for a conversation as text. Raises ValueError for one that the model's template refuses."""
    from jinja2 import TemplateError

    tokenizer = chat.load_tokenizer(model)
    fold = json.loads((model / "text_contract.json").read_text(encoding="utf-8"))["fold_system"]

    def text(conversation: list[dict], add_generation_prompt: bool = True) -> str:
        more = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        said = {True: folded, False: list}[fold](conversation)
        try:
            return tokenizer.apply_chat_template(said, tokenize=False, **more)
        except TemplateError as error:
            roles = " ".join(message["role"] for message in said)
            told = f"the chat template of {model} refuses {roles} ({' '.join(str(error).split())})"
            raise ValueError(f"{told}; set system_role: fold in bases, or chat: false in benchmarks") from error

    return text


def row(instance: Any, task: str, subject: str, max_tokens: int | None) -> dict[str, Any]:
    """SCHEMA of one of lm-eval's requests."""
    context, how = instance.args
    asked = {
        "id": tasks.identity(instance.doc),
        "sample": instance.idx,
        "task": task,
        "subject": subject,
        "kind": instance.request_type,
        "context": context,
        "document": json.dumps(instance.doc, sort_keys=True),
    }
    if instance.request_type == "loglikelihood":
        return asked | {"continuation": how}
    limit = max_tokens or how.get("max_gen_toks") or LIMIT
    temperature = how.get("temperature", 0.0) if how.get("do_sample") else 0.0
    return asked | {"until": how["until"], "max_tokens": limit, "temperature": temperature}


def rows(task: str, questions: list[dict], shots: list[dict], entry: Any, model: Path) -> list[dict[str, Any]]:
    """Every request of the questions, those of a subject together."""
    examples, found = tasks.parts(task, shots), []
    how: dict[str, Any] = {}
    if entry.chat:
        how = {"apply_chat_template": True, "chat_template": written_by(model), "fewshot_as_multiturn": True}
    for subject, those in tasks.parts(task, questions).items():
        made = tasks.built(task, subject, those, examples.get(subject, []), entry.shots, **how)
        found += [row(instance, task, subject, entry.max_tokens) for instance in made.instances]
    return found


def main(params: Any, name: str, raw: Path, model: Path, *, asked: Path) -> None:
    entry = params.benchmarks[name]
    if entry.task in programs.FILES:
        sandbox.check()  # before anybody answers what cannot be graded
    questions = tasks.questions_of(entry.task, raw)
    taken = tasks.chosen(programs.in_test_split(entry.task, questions), entry.questions)
    shots = tasks.documents(entry.task, raw, "shots")
    made = rows(entry.task, taken, shots, entry, model)
    pq.write_table(pa.Table.from_pylist(made, SCHEMA), asked)
    told = f"{len(taken)} of {len(questions)} questions, {entry.shots} shots"
    print(f"ask {name}: {told}, {len(made)} {made[0]['kind']} rows by {entry.task}")
