"""Read a judge's stored verdicts on a policy's answers to a chat benchmark; nobody is asked.

Reads   asked: rows of stages/benchmarks/chats/questions.py; answers: of turns.py; verdicts: of verdicts.py; words: the
        referee's, whose hash stands beside the numbers
Writes  metrics: questions; judge (who was asked, which models spoke, the hash of its words); empty, cut_off: turns of
        the policy; unread: verdicts without a number, by reason, with their questions; and of each question, in the
        order of ids: category, scores (null where a verdict on it could not be read), weights, characters,
        baseline_characters, difficulty, style
Params  referee.served, referee.model: who was asked

        alpaca_eval   win_rate: P(the policy's answer is better than the baseline's)
        arena_hard    win_rate of both orders, 1, 0.5 or 0; a verdict of >> counts three times (weights)
        mt_bench      rating, the mean over the turns; turn_1, turn_2 and so on

Source  Arena-Hard's weights and the markdown that its style control looks at: lmarena/arena-hard-auto, show_result.py
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages.benchmarks.chats import joined

VERDICT, RATING, BARE_RATING = (
    re.compile(pattern)
    for pattern in (r"\[\[([AB](?:>>|>|=|<|<<)[AB])\]\]", r"\[\[(\d+(?:\.\d+)?)\]\]", r"\[(\d+(?:\.\d+)?)\]")
)
BATTLES = {"A>>B": (1.0, 3), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, 3)}
"""What a verdict says of the answer shown first, and how often it counts."""
LOWEST, HIGHEST = 1, 10
CODE = re.compile(r"```.*?```", re.DOTALL)
MARKS = {
    "headers": re.compile(r"^#{1,6}\s", re.MULTILINE),
    "lists": re.compile(r"^\s*(?:[-*+]|\d+\.)\s", re.MULTILINE),
    "bold": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
}


def battle(said: str | None) -> tuple[float, int] | None:
    """BATTLES of what the judge wrote; None unless it holds one verdict, or the same one again."""
    found = {text if text in BATTLES else turned(text) for text in VERDICT.findall(said or "")}
    return BATTLES.get(found.pop()) if len(found) == 1 else None


def turned(verdict: str) -> str:
    """B<A is A>B, and A=A is none."""
    return verdict[::-1].replace("<", ">")


def rating(said: str | None) -> float | None:
    """The last [[x]], else the last [x], from 1 to 10; None where there is none."""
    found = RATING.findall(said or "") or BARE_RATING.findall(said or "")
    value = float(found[-1]) if found else 0.0
    return value if LOWEST <= value <= HIGHEST else None


def style(text: str) -> list[float]:
    """Headers, list items and bold words per 1,000 characters, code aside."""
    prose = CODE.sub("", text)
    return [1000 * len(mark.findall(prose)) / max(len(prose), 1) for mark in MARKS.values()]


def of_preference(row: dict, verdicts: list[dict]) -> dict[str, Any]:
    """Score and weight of a question that was judged once."""
    p = verdicts[0]["p_first"]
    mine = None if p is None else {True: p, False: 1 - p}[joined.policy_first(row["id"])]
    return {"scores": {"win_rate": mine}, "weight": 1}


def of_battles(row: dict, verdicts: list[dict]) -> dict[str, Any]:
    """Score and weight of a question that was judged in both orders."""
    first, second = (battle(verdict["said"]) for verdict in verdicts)
    if first is None or second is None:
        return {"scores": {"win_rate": None}, "weight": 0}
    weight = first[1] + second[1]
    won = first[0] * first[1] + (1 - second[0]) * second[1]
    return {"scores": {"win_rate": won / weight}, "weight": weight}


def of_ratings(row: dict, verdicts: list[dict]) -> dict[str, Any]:
    """Scores of a question whose turns were rated."""
    found = [rating(verdict["said"]) for verdict in verdicts]
    read = [value for value in found if value is not None]
    mean = sum(read) / len(read) if len(read) == len(found) else None
    turns = {f"turn_{place}": value for place, value in enumerate(found, 1)}
    return {"scores": {"rating": mean} | turns, "weight": 1}


READERS = {"alpaca_eval": of_preference, "arena_hard": of_battles, "mt_bench": of_ratings}


NUMBERS: dict[str, Callable[[dict], Any]] = {
    "alpaca_eval": lambda verdict: verdict["p_first"],
    "arena_hard": lambda verdict: battle(verdict["said"]),
    "mt_bench": lambda verdict: rating(verdict["said"]),
}
"""What is read of a verdict; None where that cannot be."""


def unread(task: str, verdicts: list[dict]) -> dict[str, Any]:
    """How many verdicts have no number, by reason, and of which questions."""
    lost = [row for row in verdicts if NUMBERS[task](row) is None]
    reasons = Counter(row["unasked"] or "unreadable" for row in lost)
    return {"verdicts": dict(sorted(reasons.items())), "questions": sorted({row["id"] for row in lost})}


def of_question(row: dict, verdicts: list[dict]) -> dict[str, Any]:
    """What is known of one question."""
    mine, theirs = row["completions"][0], row["baseline"] or ""
    return READERS[row["task"]](row, verdicts) | {
        "id": row["id"],
        "category": row["category"],
        "difficulty": row["difficulty"],
        "characters": sum(map(len, row["completions"])),
        "baseline_characters": len(theirs),
        "style": [a - b for a, b in zip(style(mine), style(theirs), strict=True)],
    }


def scored(questions: list[dict], verdicts: list[dict]) -> dict[str, Any]:
    """The stage's metrics, but for the judge. Raises ValueError where verdicts are missing."""
    heard: dict[str, list[dict]] = {}
    for row in sorted(verdicts, key=lambda row: row["place"]):
        heard.setdefault(row["id"], []).append(row)
    missing = [row["id"] for row in questions if row["id"] not in heard]
    if missing:
        raise ValueError(f"no verdict on question {missing[0]}; run the judge again")
    found, task = [of_question(row, heard[row["id"]]) for row in questions], questions[0]["task"]
    turns = [(text, end) for row in questions for text, end in zip(row["completions"], row["finished"], strict=True)]
    names = ("id", "category", "weight", "characters", "baseline_characters", "difficulty", "style")
    columns = {name: [each[name] for each in found] for name in names}
    metrics = dict.fromkeys(metric for each in found for metric in each["scores"])
    return {
        "questions": len(questions),
        "empty": sum(not text.strip() for text, _ in turns),
        "cut_off": sum(not end for _, end in turns),
        "unread": unread(task, verdicts),
        "ids": columns.pop("id"),
        "scores": {metric: [each["scores"].get(metric) for each in found] for metric in metrics},
    } | columns


def main(params: Any, asked: Path, answers: Path, verdicts: Path, words: Path, *, metrics: Path) -> None:
    heard = pq.read_table(verdicts).to_pylist()
    questions = joined.joined(pq.read_table(asked).to_pylist(), pq.read_table(answers).to_pylist())
    facts, who = scored(questions, heard), params.referee.served or params.referee.model
    spoke = sorted({row["by"] for row in heard if row["by"]})
    judge = {"asked": who, "spoke": spoke, "words": hashlib.sha256(words.read_bytes()).hexdigest()[:12]}
    facts |= {"task": questions[0]["task"], "judge": judge}
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    lost = sum(facts["unread"]["verdicts"].values())
    print(f"scores: {facts['questions']} questions of {asked.stem}, {len(heard)} verdicts, {lost} unread")
