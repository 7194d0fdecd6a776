"""Choose the policy to ship: the iterate with the highest mean proxy reward on the validation prompts.

Reads   table: policy -> numbers
Writes  metrics: the policy chosen and each iterate's value
Params  select.by
Source  RLHF Workflow, arXiv 2405.07863, Algorithm 2, line 7. Neither the test prompts nor the gold reward has a say
"""

import json
from pathlib import Path
from typing import Any


def choose(table: dict[str, dict], by: str) -> tuple[str, dict[str, float]]:
    """The best of the iterates (pi1, pi2, ...), the earlier one where two tie, and the value of each."""
    values = {name: row["validation"][by] for name, row in table.items() if name not in ("pi0", "offline")}
    return max(values, key=lambda name: values[name]), values


def main(params: Any, table: Path, *, metrics: Path) -> None:
    best, values = choose(json.loads(table.read_text()), params.select.by)
    metrics.write_text(json.dumps({"policy": best, "by": params.select.by, "validation": values}, indent=2) + "\n")
    print(f"select: {best}, {params.select.by} on validation {values}")
