"""Buy labels for pairs of the policy's own samples, so that the reward model can be refreshed where the policy is now:
D2PO.

Reads   before: the labelled pairs so far; candidates: shards of the samples of `policy` (pi0, pi1, ...), with the
        judge's rewards where the judge labels; labels: the folder of people's labels, <policy>.jsonl
Writes  annotated: the pairs so far and the new ones; metrics: prompts in, pairs out, drops by name
Params  annotate.by: simulated (y ~ Ber(sigmoid(r*(A) - r*(B))), drawn by seed and pair), judge (the higher reward),
        people; annotate.pairs; seed
Source  Singhal et al. 2024, arXiv 2405.01511; the simulated annotator: RLHF Workflow, arXiv 2405.07863, Definition 2

People see A and B in an order that is drawn. Where their file is missing, the stage writes the questions to labels/ in
STAGE_HOME (else .scratch) and ends with an error that says how to answer them; a file that came back with another text,
a line too few or an unknown choice is refused whole.
"""

import hashlib
import json
import math
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import shards
from stages.signals import annotator

CHOICES = ("A", "B", "tie", "skip")


def draw(seed: int, *parts: object) -> float:
    """A number in [0, 1) that depends on what is asked about and on nothing else."""
    name = ":".join(map(str, (seed, "annotate", *parts)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def questions(candidates: list[dict], policy: str, number: int, seed: int) -> tuple[list[dict], Counter]:
    """Two different completions of each of `number` prompts, drawn, as A and B; and the prompts left out, by rule."""
    groups = defaultdict(list)
    for row in sorted(candidates, key=lambda row: (row["id"], row["sample"])):
        groups[row["id"]].append(row)
    rows, drops = [], Counter({"no_two_different": 0, "over_budget": 0})
    for name, group in sorted(groups.items(), key=lambda item: draw(seed, policy, item[0])):
        worded = [row for row in group if row["completion"].strip()]
        ordered = sorted(worded, key=lambda row: draw(seed, policy, name, row["sample"]))
        others = [row for row in ordered if row["completion"].strip() != ordered[0]["completion"].strip()]
        if len(rows) == number:
            drops["over_budget"] += 1
        elif not others:
            drops["no_two_different"] += 1
        else:
            rows.append({"id": f"{policy}:{name}", "a": ordered[0], "b": others[0]})
    return rows, drops


def by_r_star(row: dict, seed: int) -> str:
    """The side that the simulated annotator draws."""
    a, b = (annotator.gold(side["prompt"], side["completion"], side["finished"]) for side in (row["a"], row["b"]))
    return "A" if draw(seed, row["id"], "label") < 1 / (1 + math.exp(b - a)) else "B"


def by_judge(row: dict) -> str:
    """The side with the higher reward; skip where the judge could not tell."""
    a, b = row["a"]["reward"], row["b"]["reward"]
    if a is None or b is None:
        return "skip"
    if a == b:
        return "tie"
    return "A" if a > b else "B"


def shown(row: dict) -> dict[str, Any]:
    """A question as people see it."""
    return {
        "id": row["id"],
        "prompt": row["a"]["prompt"],
        "A": row["a"]["completion"],
        "B": row["b"]["completion"],
        "choice": None,
    }


def by_people(rows: list[dict], file: Path) -> list[str]:
    """The choices in the file that came back.

    Raises ValueError where there is none, or it does not answer these questions.
    """
    asked = [shown(row) for row in rows]
    if not file.exists():
        raise ValueError(ask(asked, file))
    found = answers(file)
    for question in asked:
        number, entry = found.pop(question["id"], (0, None))
        if entry is None:
            told = f"{file}: no line for {question['id']!r}"
            raise ValueError(f"{told}; every question wants an answer, skip counts as one")
        fault = wrong(question, entry)
        if fault:
            raise ValueError(f"{file}:{number}: {fault}, for {question['id']!r}")
        question["choice"] = entry["choice"]
    if found:
        told = f"{file}: {len(found)} lines answer questions that were not asked, {min(found)!r} first"
        raise ValueError(f"{told}; they are of another run, remove them")
    return [question["choice"] for question in asked]


def wrong(question: dict, entry: dict) -> str:
    """What makes an entry no answer to the question; empty for one that is."""
    changed = [name for name in ("prompt", "A", "B") if entry.get(name) != question[name]]
    if changed:
        return f"{changed[0]} is not what was asked; put it back"
    if entry.get("choice") not in CHOICES:
        return f"choice = {entry.get('choice')!r} must be one of {', '.join(CHOICES)}"
    return ""


def asked_in(file: Path) -> Path:
    """Where the questions of a file of answers are written, relative to here if it is below."""
    home = Path(os.environ.get("STAGE_HOME", ".scratch")).absolute()
    path = home / "labels" / file.name
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def ask(asked: list[dict], file: Path) -> str:
    """Write the questions out for people, never over answers of theirs; what to tell them."""
    out, choices = asked_in(file), ", ".join(CHOICES)
    done = sum('"choice": null' not in line for line in lines(out)) if out.exists() else 0
    if done:
        told = f"{out} has {done} lines filled in, which are not written over"
        return f"{told}: save it as {file} when it is whole, or move it away, and run again"
    out.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(question, ensure_ascii=False) + "\n" for question in asked)
    out.write_text(text, encoding="utf-8")
    told = f"{len(asked)} pairs wait for labels: fill in `choice` ({choices}) in {out}"
    return f"{told}, save it as {file}, and run again"


def answers(file: Path) -> dict[str, tuple[int, dict]]:
    """Line number and content of every line, by id.

    Raises ValueError for a line that is none, or an id that came before.
    """
    found = {}
    for number, line in enumerate(lines(file), 1):
        try:
            entry = json.loads(line)
            twice = found.setdefault(entry["id"], (number, entry))[0]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            told = f"{file}:{number}: no JSON object with an id ({error})"
            raise ValueError(f"{told}; take the line from {asked_in(file)} again") from error
        if twice != number:
            told = f"{file}:{number}: {entry['id']!r} is answered in line {twice} already"
            raise ValueError(f"{told}; keep one of the two")
    return found


def lines(file: Path) -> list[str]:
    """At newlines only: an answer may hold other marks that end a line."""
    return file.read_text(encoding="utf-8").rstrip("\n").split("\n")


def pair(row: dict, choice: str) -> dict[str, Any]:
    """A labelled pair in the form of the preferences; how strong the preference is, nobody said."""
    won, lost = (row["a"], row["b"]) if choice == "A" else (row["b"], row["a"])
    sides = {
        side: [{"role": "assistant", "content": answer["completion"]}]
        for side, answer in (("chosen", won), ("rejected", lost))
    }
    ends = {"chosen_finished": won["finished"], "rejected_finished": lost["finished"]}
    return {"id": row["id"], "source": "annotate", "prompt": won["prompt"], **sides, "margin": None, **ends}


def labelled(rows: list[dict], by: str, file: Path, seed: int) -> list[str]:
    """The choice for each question."""
    if by == "people":
        return by_people(rows, file) if rows else []
    return [by_r_star(row, seed) if by == "simulated" else by_judge(row) for row in rows]


def main(
    params: Any, before: Path, candidates: Path, labels: Path, policy: str, *, annotated: Path, metrics: Path
) -> None:
    samples, earlier = shards.read(candidates), pq.read_table(before)
    rows, drops = questions(samples, policy, params.annotate.pairs, params.seed)
    choices = labelled(rows, params.annotate.by, labels / f"{policy}.jsonl", params.seed)
    drops.update(tie=choices.count("tie"), skip=choices.count("skip"))
    made = [pair(row, choice) for row, choice in zip(rows, choices, strict=True) if choice in ("A", "B")]
    prompts = len({row["id"] for row in samples})
    pq.write_table(pa.concat_tables([earlier, pa.Table.from_pylist(made, earlier.schema)]), annotated)
    facts = {"by": params.annotate.by, "rows_in": prompts, "rows_out": len(made), "drops": drops}
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    told = f"{len(made)} pairs labelled by {params.annotate.by}, drops {dict(drops)}"
    print(f"annotate {policy}: {prompts} prompts -> {told}; {earlier.num_rows + len(made)} in all")
