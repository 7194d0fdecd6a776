"""Add one policy's numbers to the table so far: a chain over iterations, so that a new one leaves the earlier links alone.

Reads   tables: policy -> its numbers, one policy or more in each
Writes  table: one JSON object, policy -> its numbers, in the order in which the policies were made
"""

import json
from pathlib import Path
from typing import Any


def main(params: Any, tables: list[Path], *, table: Path) -> None:
    rows: dict[str, Any] = {}
    for path in tables:
        rows |= json.loads(path.read_text())
    table.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"standings: {', '.join(rows)}")
