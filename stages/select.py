"""Choose the policy to ship: the iterate that is best on the validation prompts, among those within the caps.

Reads   table: policy -> numbers
Writes  metrics: the policy chosen, each iterate's value, and those that a cap rules out
Params  select.by (proxy_reward, or proxy_win_rate over pi_0), select.max_kl (nats per answer), select.max_tokens; null for no cap
Source  RLHF Workflow, arXiv 2405.07863, Algorithm 2, line 7. Neither the test prompts nor the gold reward has a say
"""

import json
from pathlib import Path
from typing import Any


def beyond(numbers: dict[str, float], caps: dict[str, float | None]) -> str:
    """The cap that a policy breaks, in words; empty where it breaks none."""
    return "; ".join(f"{name} {numbers[name]} over {cap}" for name, cap in caps.items() if cap is not None and numbers[name] > cap)


def choose(table: dict[str, dict], by: str, caps: dict[str, float | None]) -> tuple[str, dict[str, float], dict[str, str]]:
    """The best of the iterates (pi1, pi2, ...) within the caps, the earlier one where two tie, pi0 where there is none; all values; who is out, and why."""
    iterates = {name: row["validation"] for name, row in table.items() if name not in ("pi0", "offline")}
    out = {name: why for name, numbers in iterates.items() if (why := beyond(numbers, caps))}
    within = {name: numbers[by] for name, numbers in iterates.items() if name not in out}
    return max(within, key=lambda name: within[name], default="pi0"), {name: numbers[by] for name, numbers in iterates.items()}, out


def main(params: Any, table: Path, *, metrics: Path) -> None:
    caps = {"kl": params.select.max_kl, "tokens": params.select.max_tokens}
    best, values, out = choose(json.loads(table.read_text()), params.select.by, caps)
    metrics.write_text(json.dumps({"policy": best, "by": params.select.by, "validation": values, "ruled_out": out}, indent=2) + "\n")
    print(f"select: {best}, {params.select.by} on validation {values}{f', ruled out {out}' if out else ''}")
