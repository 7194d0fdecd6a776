"""Turn a policy's measured answers into numbers with intervals, paired against pi_0 and against offline DPO on the
same prompts.

Reads   measures: a policy's answers, the same number to each prompt, with proxy_reward, logp_sampler, logp_policy,
        logp_reference;
        baseline, offline: the same of pi_0 and of offline DPO. With judge_preference where `judge` asked; making:
        accounts of the stages that made the policy, its curves and examples, which pass into git here, under their
        folders' names
Writes  metrics: {policy: numbers}; on the test prompts gold reward, gain and win rate over pi_0 and over offline DPO,
        and how often proxy and gold agree on the better of a policy's and pi_0's answer;
        on test and on validation prompts proxy reward and its win rate, and what shows over-optimisation
        (stages/evaluation/monitors.py): length and its correlation with the proxy reward, share finished, KL to pi_0,
        distinct-2, repetition; where judged, the judge's preference over pi_0, how much higher it is than offline
        DPO's on the same prompts, and the verdicts that could not be read
Params  evaluate.gold, evaluate.resamples, evaluate.confidence; seed; dvc.yaml reads evaluate.reads
Source  intervals: percentile bootstrap over prompts, each with the mean of its answers (Efron 1979); the gold reward
        is stages/signals/annotator.py, which training never reads
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from stages.evaluation import bootstrap, monitors
from stages.signals import annotator


def split(path: Path, name: str) -> list[dict]:
    """The answers to one split's prompts, by prompt and sample."""
    rows = [row for row in pq.read_table(path).to_pylist() if row["split"] == name]
    return sorted(rows, key=lambda row: (row["id"], row["sample"]))


def wins(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """1 where mine is higher, 0 where lower, a half where equal; shape (N,)."""
    return (np.sign(mine - theirs) + 1) / 2


def with_intervals(means: dict[str, np.ndarray], params: Any) -> dict[str, Any]:
    """Each quantity's mean over prompts and the mean's interval; `means` holds each prompt's own."""
    settings = (params.evaluate.resamples, params.evaluate.confidence, params.seed)
    facts: dict[str, Any] = {}
    for name, each in means.items():
        facts[name] = round(float(each.mean()), 4)
        facts[f"{name}_interval"] = bootstrap.interval(each, *settings)
    return facts


def gold_rewards(rows: list[dict]) -> np.ndarray:
    return np.array([annotator.gold(row["prompt"], row["completion"], row["finished"]) for row in rows])


def proxy_wins(rows: list[dict], baseline: list[dict]) -> np.ndarray:
    return wins(monitors.column(rows, "proxy_reward"), monitors.column(baseline, "proxy_reward"))


def golds(rows: list[dict], baseline: list[dict], offline: list[dict], params: Any) -> dict[str, Any]:
    """The gold reward of a policy, and what it gains over the two others, with intervals; the k-th answers to a prompt
    are compared.
    """
    mine, pi0, rival = gold_rewards(rows), gold_rewards(baseline), gold_rewards(offline)
    by_gold, by_proxy = wins(mine, pi0), proxy_wins(rows, baseline)
    quantities = {
        "gold_reward": mine,
        "gain": mine - pi0,
        "over_offline": mine - rival,
        "win_rate": by_gold,
        "win_rate_over_offline": wins(mine, rival),
        "proxy_agrees": 1 - np.abs(by_proxy - by_gold),
    }
    prompts = len({row["id"] for row in rows})
    return with_intervals({name: each.reshape(prompts, -1).mean(axis=1) for name, each in quantities.items()}, params)


def monitored(rows: list[dict], baseline: list[dict]) -> dict[str, float]:
    """The monitors, and how often the proxy prefers the k-th answer to a prompt to pi_0's."""
    rate = float(proxy_wins(rows, baseline).mean())
    return monitors.numbers(rows) | {"proxy_win_rate": round(rate, 4)}


def numbers(rows: list[dict], baseline: list[dict], offline: list[dict], params: Any) -> dict[str, Any]:
    """Every number of one policy on the test prompts.

    Raises ValueError unless the three policies answered the same prompts as often.
    """
    asked, *others = ([(row["id"], row["sample"]) for row in side] for side in (rows, baseline, offline))
    if others != [asked, asked]:
        rule = "answered different prompts, which cannot be paired; run respond again for all"
        raise ValueError(f"the policy, pi_0 and offline DPO {rule}")
    facts: dict[str, Any] = {"prompts": len({row["id"] for row in rows}), "answers": len(rows)}
    if params.evaluate.gold != "none":
        facts |= golds(rows, baseline, offline, params)
    return facts | monitored(rows, baseline)


def preferences(rows: list[dict]) -> dict[str, float]:
    """The judge's mean preference over pi_0 on each prompt where one could be read."""
    told: dict[str, list[float]] = {}
    for row in rows:
        if row["judge_preference"] is not None:
            told.setdefault(row["id"], []).append(row["judge_preference"])
    return {name: float(np.mean(each)) for name, each in told.items()}


def judge_numbers(rows: list[dict], offline: list[dict], params: Any) -> dict[str, Any]:
    """What the judge prefers, with intervals over prompts; nothing where none was asked.

    Raises ValueError where no verdict was read.
    """
    if "judge_preference" not in rows[0]:
        return {}
    mine, theirs = preferences(rows), preferences(offline)
    both = [name for name in mine if name in theirs]
    if not both:
        asked, which = len({row["id"] for row in rows}), rows[0]["split"]
        remedy = "take one with a longer context, or shorter answers"
        raise ValueError(f"the judge gave no readable verdict on {asked} {which} prompts; {remedy}")
    quantities = {
        "judge_win_rate": np.array(list(mine.values())),
        "judge_over_offline": np.array([mine[name] - theirs[name] for name in both]),
    }
    unreadable = sum(row["judge_preference"] is None for row in rows)
    return with_intervals(quantities, params) | {"judge_unreadable": unreadable}


def main(params: Any, measures: Path, baseline: Path, offline: Path, making: list[Path], *, metrics: Path) -> None:
    mine, pi0, rival = (split(path, "test") for path in (measures, baseline, offline))
    test = numbers(mine, pi0, rival, params) | judge_numbers(mine, rival, params)
    mine, pi0, rival = (split(path, "validation") for path in (measures, baseline, offline))
    validation = monitored(mine, pi0) | judge_numbers(mine, rival, params)
    accounts = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in making}
    found = {measures.stem: {"test": test, "validation": validation} | accounts}
    metrics.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(summary(measures.stem, test))


def summary(policy: str, test: dict[str, Any]) -> str:
    """One line for the terminal."""
    told = [f"{test['answers']} answers to {test['prompts']} prompts"]
    if "gain" in test:
        told.append(f"gold reward {test['gold_reward']} {test['gold_reward_interval']}")
        told.append(f"gain {test['gain']} {test['gain_interval']}")
    told += [f"proxy {test['proxy_reward']}", f"KL {test['kl']} nats"]
    return f"evaluate {policy}: {', '.join(told)}"
