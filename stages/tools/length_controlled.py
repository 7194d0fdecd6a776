"""Length-controlled win rates of judged models, beside what was published where that is known.

    python -m stages.tools.length_controlled FOLDER [--model NAME ...]

Reads   FOLDER/instructions.jsonl (index, difficulty, and of the two gamed baselines tanh_verbose, tanh_concise),
        annotations.jsonl (model, index, preference of it in 0..1, characters, baseline_characters), regulariser.json
        (S_t, S_d, weight_per_gamed_row) and, where it is there, published.jsonl (model, length_controlled_winrate);
        each may end in .gz
Prints  a table in Markdown: rows judged, win rate, length-controlled win rate and its interval of 95 % by 1,000
        resamples of the instructions, the published number and the difference, in points
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from stages.benchmarks import stored
from stages.evaluation import html_pages, length_controlled

RESAMPLES, CONFIDENCE, SEED = 1000, 0.95, 1


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a file, packed or not. Raises ValueError where it is not there, and for a line that is no row."""
    found = [row for _, row in stored.rows(folder, name)]
    if not found:
        raise ValueError(f"{folder}/{name}.jsonl is not there, or empty; bring it")
    return found


def gamed(folder: Path, instructions: list[dict]) -> length_controlled.Gamed:
    facts = json.loads((folder / "regulariser.json").read_text(encoding="utf-8"))
    lengths = [row[name] for name in ("tanh_verbose", "tanh_concise") for row in instructions]
    difficulties = [row["difficulty"] for row in instructions] * 2
    weight = facts["weight_per_gamed_row"]
    return length_controlled.Gamed(np.array(lengths), np.array(difficulties), facts["S_t"], facts["S_d"], weight)


def line(name: str, rows: list[dict], known: dict[int, float], others: length_controlled.Gamed, said: Any) -> list[str]:
    """A model's row of the table. Raises ValueError for rows that cannot be joined."""
    try:
        answers = length_controlled.answers(rows, known)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    rate = 100 * length_controlled.win_rate(answers, length_controlled.fit(answers, others))
    low, high = length_controlled.interval(answers, others, RESAMPLES, CONFIDENCE, SEED)
    numbers = [f"{len(rows)} of {len(known)}", f"{100 * answers.preferences.mean():.2f}", f"{rate:.2f}"]
    published = ["", ""] if said is None else [f"{said:.2f}", f"{rate - said:+.2f}"]
    return [name, *numbers, f"[{100 * low:.2f}, {100 * high:.2f}]", *published]


def main() -> None:
    parser = argparse.ArgumentParser(prog="length_controlled", description="Length-controlled win rates.")
    parser.add_argument("folder", type=Path, help="with instructions, annotations, regulariser.json")
    parser.add_argument("--model", action="append", help="one of the models; all where none is named")
    given = parser.parse_args()
    try:
        instructions, models = read(given.folder, "instructions"), {}
        for row in read(given.folder, "annotations"):
            models.setdefault(row["model"], []).append(row)
        published = read(given.folder, "published") if list(given.folder.glob("published.jsonl*")) else []
        said = {row["model"]: row["length_controlled_winrate"] for row in published}
        missing = [name for name in given.model or [] if name not in models]
        if missing:
            raise ValueError(f"{missing[0]}: is none of the {len(models)} models of {given.folder}/annotations.jsonl")
        known, others = {row["index"]: row["difficulty"] for row in instructions}, gamed(given.folder, instructions)
        chosen = given.model or sorted(models)
        table = [line(name, models[name], known, others, said.get(name)) for name in chosen]
    except KeyError as error:
        sys.exit(f"length_controlled: a row of {given.folder} has no field {error}; bring the file whole")
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"length_controlled: {' '.join(str(error).split())}")
    header = ["model", "judged", "win rate", "length-controlled", "interval", "published", "difference"]
    print(html_pages.markdown(header, table), end="")


if __name__ == "__main__":
    main()
