"""Add one policy's numbers to the table so far: a chain over iterations, so that a new one leaves the earlier links
alone.

Reads   tables: policy -> its numbers, one policy or more in each; making: metrics of the stages that made the last of
        them
Writes  table: one JSON object, policy -> its numbers, in the order in which the policies were made; the makers'
        metrics under their stages' names
"""

import json
from pathlib import Path
from typing import Any


def main(params: Any, tables: list[Path], making: list[Path], *, table: Path) -> None:
    rows: dict[str, Any] = {}
    for path in tables:
        rows |= json.loads(path.read_text())
    last = list(rows)[-1]
    rows[last] = rows[last] | {path.parent.name: json.loads(path.read_text()) for path in making}
    table.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"standings: {', '.join(rows)}")
