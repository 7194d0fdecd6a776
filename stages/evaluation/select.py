"""Choose the policy to ship: the iterate that is best on the validation prompts, among those within the caps that
break no rule of `stop`.

Reads   table: policy -> numbers
Writes  metrics: the policy chosen, each iterate's value, and those that are ruled out, with the reason
Params  select.by (proxy_reward, or proxy_win_rate or judge_win_rate over pi_0), select.max_kl (nats per answer),
        select.max_tokens; null for no cap; stop.*
Source  RLHF Workflow, arXiv 2405.07863, Algorithm 2, line 7. Neither the test prompts nor the gold reward has a say
"""

import json
from pathlib import Path
from typing import Any

from stages.evaluation import monitors


def against(numbers: dict[str, float], params: Any) -> str:
    """What rules a policy out, in words; empty where nothing does."""
    caps = {"kl": params.select.max_kl, "tokens": params.select.max_tokens}
    return "; ".join(monitors.over(numbers, caps, "select") + monitors.broken(numbers, params.stop))


def choose(table: dict[str, dict], params: Any) -> tuple[str, dict[str, float], dict[str, str]]:
    """The best iterate (pi1, pi2, ...) that nothing rules out, the earlier one where two tie, pi0 where there is none;
    all values; who is out, and why.
    """
    by = params.select.by
    iterates = {name: row["validation"] for name, row in table.items() if name not in ("pi0", "offline")}
    out = {name: why for name, numbers in iterates.items() if (why := against(numbers, params))}
    within = {name: numbers[by] for name, numbers in iterates.items() if name not in out}
    return (
        max(within, key=lambda name: within[name], default="pi0"),
        {name: numbers[by] for name, numbers in iterates.items()},
        out,
    )


def main(params: Any, table: Path, *, metrics: Path) -> None:
    best, values, out = choose(json.loads(table.read_text()), params)
    metrics.write_text(
        json.dumps({"policy": best, "by": params.select.by, "validation": values, "ruled_out": out}, indent=2) + "\n"
    )
    print(f"select: {best}, {params.select.by} on validation {values}{f', ruled out {out}' if out else ''}")
