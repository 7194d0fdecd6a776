"""Turn a chat benchmark into rows: what a policy is asked, turn by turn, and what its judge is shown beside.

Reads   raw: a folder with questions.jsonl (or .jsonl.gz), and perhaps corrections.jsonl; template: the referee's words,
        in Jinja; `name` of the entry in chats
Writes  asked: a row for each question (SCHEMA); words: the template as it is, which only the referee's stage reads
Params  chats.<name>: task; questions, how many (null for all); baseline, the field with the answer to compare with;
        max_tokens of an answer

        alpaca_eval   instruction (or prompt), the baseline's answer; perhaps difficulty
        arena_hard    prompt, or turns as published; the baseline's answer; uid or question_id
        mt_bench      question_id, category, turns, perhaps reference: one text a turn. corrections.jsonl, question_id
                      and reference, puts right those that are known to be wrong

Source  temperatures: FastChat, llm_judge/common.py (0.7 to write and to play a role, 0.1 where a few words of science
        are due, else 0); Arena-Hard and AlpacaEval answer greedily here
"""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.benchmarks import stored

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("max_tokens", pa.int32()),  # of each answer
        ("category", pa.string()),
        ("turns", pa.list_(pa.string())),
        ("references", pa.list_(pa.string())),  # one a turn; none where no reference is known
        ("baseline", pa.string()),  # the answer to compare with; null in MT-Bench
        ("temperature", pa.float64()),
        ("difficulty", pa.float64()),  # of the instruction, for the length-controlled win rate; 0 where it is not known
    ]
)
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
REFERENCES = ("reference", "reference_gpt4", "reference_answer")


def texts(row: dict[str, Any]) -> list[str]:
    """What is asked, one text a turn. Raises ValueError where there is none."""
    found = next((row[name] for name in ("turns", "instruction", "prompt", "question") if row.get(name)), None)
    turns = found if isinstance(found, list) else [found]
    said = [turn.get("content") if isinstance(turn, dict) else turn for turn in turns]
    asked = [text for text in said if isinstance(text, str) and text.strip()]
    if not asked or len(asked) < len(said):
        raise ValueError(f"no text to ask in turns, instruction, prompt or question, of {sorted(row)}")
    return asked


def other(row: dict[str, Any], field: str | None) -> str:
    """The baseline's answer. Raises ValueError where it is missing."""
    answer = row.get(field or "")
    if not isinstance(answer, str):
        told = f"the baseline's answer is looked for in {field!r}, and the fields are {', '.join(sorted(row))}"
        raise ValueError(f"{told}; set chats.<name>.baseline to the one that holds it")
    return answer


def references(row: dict[str, Any], turns: list[str]) -> list[str]:
    """One a turn, "" for a turn without; none where none is known."""
    found = next((row[name] for name in REFERENCES if row.get(name)), [])
    listed = found if isinstance(found, list) else [found]
    return [*listed, *[""] * (len(turns) - len(listed))] if listed else []


def identity(row: dict[str, Any], turns: list[str]) -> str:
    """The benchmark's own name of a question, else 16 hex digits of its words."""
    own = next((row[name] for name in ("question_id", "uid", "prompt_id", "id") if name in row), None)
    return str(own) if own is not None else hashlib.sha256("\0".join(turns).encode()).hexdigest()[:16]


def shaped(row: dict[str, Any], entry: Any) -> dict[str, Any]:
    """SCHEMA of one line of questions.jsonl. Raises ValueError for one of another form."""
    turns = texts(row)
    if entry.task != "mt_bench" and len(turns) > 1:
        raise ValueError(f"{len(turns)} turns, and {entry.task} asks one; take mt_bench, or join them")
    category, rated = row.get("category") or "", entry.task == "mt_bench"
    return {
        "id": identity(row, turns),
        "task": entry.task,
        "max_tokens": entry.max_tokens,
        "category": category,
        "turns": turns,
        "references": references(row, turns) if rated else [],
        "baseline": None if rated else other(row, entry.baseline),
        "temperature": TEMPERATURES.get(category, 0.0) if rated else 0.0,
        "difficulty": float(row.get("difficulty") or 0.0),
    }


def corrected(rows: list[dict], corrections: dict[str, Any]) -> list[dict]:
    """Rows with the references that were put right. Raises ValueError for one of no question."""
    unknown = sorted(set(corrections) - {row["id"] for row in rows})
    if unknown:
        raise ValueError(f"corrections.jsonl: {unknown[0]!r} is none of the questions; take it out")
    more = {name: references({"reference": found}, []) for name, found in corrections.items()}
    return [row | {"references": more.get(row["id"], row["references"])} for row in rows]


def read(raw: Path, entry: Any) -> list[dict[str, Any]]:
    """Every question of a folder. Raises ValueError for a line of another form, and for one that stands there twice."""
    found = stored.shaped(raw, "questions", lambda row: shaped(row, entry), f"as {entry.task} has it")
    stored.check_once(raw, [(row["id"], "") for row in found])
    fix = lambda row: (str(row["question_id"]), row["reference"])  # noqa: E731
    fixed = stored.shaped(raw, "corrections", fix, "question_id and reference are wanted")
    return corrected(found, dict(fixed))


def hashed(row: dict) -> str:
    return hashlib.sha256(row["id"].encode()).hexdigest()


def main(params: Any, name: str, raw: Path, template: Path, *, asked: Path, words: Path) -> None:
    entry = params.chats[name]
    words.write_bytes(template.read_bytes())
    found = read(raw, entry)
    taken = stored.chosen(found, entry.questions, hashed)
    pq.write_table(pa.Table.from_pylist(taken, SCHEMA), asked)
    print(f"ask {name}: {len(taken)} of {len(found)} questions as {entry.task} asks them")
