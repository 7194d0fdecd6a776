"""Take from a training's log the curves that the report draws.

Reads   log: CSV, a line for each step that was logged, with its step; which columns there are depends on the trainer
Writes  curves: JSON, for each of CURVES that was logged its [step, value] pairs
"""

import csv
import json
from pathlib import Path
from typing import Any

CURVES = ("loss", "grad_norm", "learning_rate")


def column(lines: list[dict[str, str]], name: str) -> list[list[float]]:
    """A quantity's steps and values; a step that did not log it has none."""
    return [[int(line["step"]), float(line[name])] for line in lines if line.get(name)]


def main(params: Any, log: Path, *, curves: Path) -> None:
    with log.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    found = {name: values for name in CURVES if (values := column(lines, name))}
    curves.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(f"curve {log.stem}: {len(lines)} steps, {', '.join(found) or 'none logged'}")
