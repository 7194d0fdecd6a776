"""Choose the policy to ship: the iterate that is best on the validation prompts, among those within the caps that
break no rule of `stop`.

Reads   policies: a folder of `evaluate`'s metrics, one file per policy
Writes  metrics: the policy chosen, each iterate's value, and those that are ruled out, with the reason
Params  iterations; select.by (proxy_reward, or proxy_win_rate or judge_win_rate over pi_0), select.max_kl (nats per
        answer), select.max_tokens; null for no cap; stop.*
Source  RLHF Workflow, arXiv 2405.07863, Algorithm 2, line 7. Neither the test prompts nor the gold reward has a say
"""

import json
from pathlib import Path
from typing import Any

from stages.evaluation import monitors, policy_metrics


def reasons(numbers: dict[str, float], params: Any) -> str:
    """What rules a policy out, in words; empty where nothing does."""
    caps = {"kl": params.select.max_kl, "tokens": params.select.max_tokens}
    return "; ".join(monitors.over(numbers, caps, "select") + monitors.broken(numbers, params.stop))


def choose(table: dict[str, dict], params: Any) -> tuple[str, dict[str, float], dict[str, str]]:
    """The best iterate (pi1, pi2, ...) that nothing rules out, the earlier one where two tie, pi0 where there is none;
    all values; who is out, and why.
    """
    iterates = {name: row["validation"] for name, row in table.items() if name not in ("pi0", "offline")}
    values = {name: numbers[params.select.by] for name, numbers in iterates.items()}
    out = {name: why for name, numbers in iterates.items() if (why := reasons(numbers, params))}
    within = [name for name in iterates if name not in out]
    return max(within, key=values.__getitem__, default="pi0"), values, out


def main(params: Any, policies: Path, *, metrics: Path) -> None:
    best, values, out = choose(policy_metrics.table(params.iterations, policies), params)
    by = params.select.by
    found = {"policy": best, "by": by, "validation": values, "ruled_out": out}
    metrics.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    excluded = f", ruled out {out}" if out else ""
    print(f"select: {best}, {by} on validation {values}{excluded}")
