"""Buy labels for pairs of the policy's own samples, so that the reward model can be refreshed where the policy is now:
D2PO.

Reads   before: the labelled pairs so far; candidates: the samples of `policy` (pi0, pi1, ...), with the judge's
        rewards where the judge labels; labels: the folder of people's labels, <policy>.jsonl
Writes  annotated: the pairs so far and the new ones; metrics: prompts in, pairs out, drops by name
Params  annotate.by: simulated (y ~ Ber(sigmoid(r*(A) - r*(B))), drawn by seed and pair), judge (the higher reward),
        people; annotate.pairs; seed
Source  Singhal et al. 2024, arXiv 2405.01511; the simulated annotator: RLHF Workflow, arXiv 2405.07863, Definition 2

People see A and B in an order that is drawn. Where their file is missing, the stage writes the questions to
.scratch/labels and ends with an error that says how to answer them; a file that came back with another text, a line
too few or an unknown choice is refused whole.
"""

import hashlib
import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.signals import annotator

QUESTIONS = Path(".scratch/labels")
CHOICES = ("A", "B", "tie", "skip")


def draw(seed: int, *parts: object) -> float:
    """A number in [0, 1) that depends on what is asked about and on nothing else."""
    return (
        int.from_bytes(hashlib.sha256(":".join(map(str, (seed, "annotate", *parts))).encode()).digest()[:6], "big")
        / 2**48
    )


def questions(candidates: list[dict], policy: str, number: int, seed: int) -> tuple[list[dict], Counter]:
    """Two different completions of each of `number` prompts, drawn, as A and B; and the prompts left out, by rule."""
    groups = defaultdict(list)
    for row in sorted(candidates, key=lambda row: (row["id"], row["sample"])):
        groups[row["id"]].append(row)
    rows, drops = [], Counter({"no_two_different": 0, "over_budget": 0})
    for name, group in sorted(groups.items(), key=lambda item: draw(seed, policy, item[0])):
        ordered = sorted(
            (row for row in group if row["completion"].strip()), key=lambda row: draw(seed, policy, name, row["sample"])
        )
        others = [row for row in ordered if row["completion"].strip() != ordered[0]["completion"].strip()]
        rule = "over_budget" if len(rows) == number else "" if others else "no_two_different"
        if rule:
            drops[rule] += 1
        else:
            rows.append({"id": f"{policy}:{name}", "a": ordered[0], "b": others[0]})
    return rows, drops


def simulated(row: dict, seed: int) -> str:
    a, b = (annotator.gold(side["prompt"], side["completion"], side["finished"]) for side in (row["a"], row["b"]))
    return "A" if draw(seed, row["id"], "label") < 1 / (1 + math.exp(b - a)) else "B"


def judged(row: dict) -> str:
    """The side with the higher reward; skip where the judge could not tell."""
    a, b = row["a"]["reward"], row["b"]["reward"]
    return "skip" if a is None or b is None else "tie" if a == b else "A" if a > b else "B"


def shown(row: dict) -> dict[str, Any]:
    """A question as people see it."""
    return {
        "id": row["id"],
        "prompt": row["a"]["prompt"],
        "A": row["a"]["completion"],
        "B": row["b"]["completion"],
        "choice": None,
    }


def of_people(rows: list[dict], file: Path) -> list[str]:
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
            raise ValueError(
                f"{file}: no line for {question['id']!r}; every question wants an answer, skip counts as one"
            )
        changed = [name for name in ("prompt", "A", "B") if entry.get(name) != question[name]]
        if changed or entry.get("choice") not in CHOICES:
            told = (
                f"{changed[0]} is not what was asked; put it back"
                if changed
                else f"choice = {entry.get('choice')!r} must be one of {', '.join(CHOICES)}"
            )
            raise ValueError(f"{file}:{number}: {told}, for {question['id']!r}")
        question["choice"] = entry["choice"]
    if found:
        raise ValueError(
            f"{file}: {len(found)} lines answer questions that were not asked, {min(found)!r} first; they are of another run, remove them"
        )
    return [question["choice"] for question in asked]


def ask(asked: list[dict], file: Path) -> str:
    """Write the questions out for people, never over answers of theirs; what to tell them."""
    out = QUESTIONS / file.name
    done = sum('"choice": null' not in line for line in lines(out)) if out.exists() else 0
    if done:
        return f"{out} has {done} lines filled in, which are not written over: save it as {file} when it is whole, or move it away, and run again"
    QUESTIONS.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(question, ensure_ascii=False) + "\n" for question in asked))
    return f"{len(asked)} pairs wait for labels: fill in `choice` ({', '.join(CHOICES)}) in {out}, save it as {file}, and run again"


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
            raise ValueError(
                f"{file}:{number}: no JSON object with an id ({error}); take the line from {QUESTIONS / file.name} again"
            ) from error
        if twice != number:
            raise ValueError(
                f"{file}:{number}: {entry['id']!r} is answered in line {twice} already; keep one of the two"
            )
    return found


def lines(file: Path) -> list[str]:
    """At newlines only: an answer may hold other marks that end a line."""
    return file.read_text().rstrip("\n").split("\n")


def pair(row: dict, choice: str) -> dict[str, Any]:
    """A labelled pair in the form of the preferences; how strong the preference is, nobody said."""
    won, lost = (row["a"], row["b"]) if choice == "A" else (row["b"], row["a"])
    sides = {
        side: [{"role": "assistant", "content": answer["completion"]}]
        for side, answer in (("chosen", won), ("rejected", lost))
    }
    ends = {"chosen_finished": won["finished"], "rejected_finished": lost["finished"]}
    return {"id": row["id"], "source": "annotate", "prompt": won["prompt"], **sides, "margin": None, **ends}


def main(
    params: Any, before: Path, candidates: list[Path], labels: Path, policy: str, *, annotated: Path, metrics: Path
) -> None:
    samples, earlier = [row for path in candidates for row in pq.read_table(path).to_pylist()], pq.read_table(before)
    rows, drops = questions(samples, policy, params.annotate.pairs, params.seed)
    if params.annotate.by == "people":
        choices = of_people(rows, labels / f"{policy}.jsonl") if rows else []
    else:
        choices = [simulated(row, params.seed) if params.annotate.by == "simulated" else judged(row) for row in rows]
    drops.update(tie=choices.count("tie"), skip=choices.count("skip"))
    made = [pair(row, choice) for row, choice in zip(rows, choices, strict=True) if choice in ("A", "B")]
    prompts = len({row["id"] for row in samples})
    pq.write_table(pa.concat_tables([earlier, pa.Table.from_pylist(made, earlier.schema)]), annotated)
    metrics.write_text(
        json.dumps({"by": params.annotate.by, "rows_in": prompts, "rows_out": len(made), "drops": drops}, indent=2)
        + "\n"
    )
    told = f"{len(made)} pairs labelled by {params.annotate.by}, drops {dict(drops)}"
    print(f"annotate {policy}: {prompts} prompts -> {told}; {earlier.num_rows + len(made)} in all")
