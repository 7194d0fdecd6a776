"""Turn a policy's measured answers into numbers with intervals, paired against pi_0 and against offline DPO on the
same prompts.

Reads   measures: a policy's answers, the same number to each prompt, with proxy_reward, logp_policy, logp_reference;
        baseline, offline: the same of pi_0 and of offline DPO. With judge_preference where `judge` asked
Writes  metrics: {policy: numbers}; on the test prompts gold reward, gain over pi_0 and over offline DPO, win rate over
        pi_0; on test and on validation prompts proxy reward and its win rate, and what shows over-optimisation
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
    return sorted(
        (row for row in pq.read_table(path).to_pylist() if row["split"] == name),
        key=lambda row: (row["id"], row["sample"]),
    )


def wins(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """1 where mine is higher, 0 where lower, a half where equal; shape (N,)."""
    return (np.sign(mine - theirs) + 1) / 2


def column(rows: list[dict], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=np.float64)


def interval(means: np.ndarray, params: Any) -> list[float]:
    """Of the mean over prompts; `means` holds each prompt's own."""
    return bootstrap.interval(
        means, resamples=params.evaluate.resamples, confidence=params.evaluate.confidence, seed=params.seed
    )


def golds(rows: list[dict], baseline: list[dict], offline: list[dict], params: Any) -> dict[str, Any]:
    """The gold reward of a policy, and what it gains over the two others, with intervals; the k-th answers to a prompt
    are compared.
    """
    sides = (rows, baseline, offline)
    mine, theirs, offlines = (
        np.array([annotator.gold(row["prompt"], row["completion"], row["finished"]) for row in side]) for side in sides
    )
    quantities = {
        "gold_reward": mine,
        "gain": mine - theirs,
        "over_offline": mine - offlines,
        "win_rate": wins(mine, theirs),
    }
    prompts = len({row["id"] for row in rows})
    means = {name: each.reshape(prompts, -1).mean(axis=1) for name, each in quantities.items()}
    return {
        k: v
        for name, each in means.items()
        for k, v in ((name, each.mean()), (f"{name}_interval", interval(each, params)))
    }


def numbers(rows: list[dict], baseline: list[dict], offline: list[dict], params: Any) -> dict[str, Any]:
    """Every number of one policy on the test prompts.

    Raises ValueError unless the three policies answered the same prompts as often.
    """
    asked, *others = ([(row["id"], row["sample"]) for row in side] for side in (rows, baseline, offline))
    if others != [asked, asked]:
        raise ValueError(
            "the policy, pi_0 and offline DPO answered different prompts, which cannot be paired; run respond again for all"
        )
    result: dict[str, Any] = {"prompts": len({row["id"] for row in rows}), "answers": len(rows)}
    if params.evaluate.gold != "none":
        result |= golds(rows, baseline, offline, params)
    result = {k: round(float(v), 4) if isinstance(v, float | np.floating) else v for k, v in result.items()}
    return result | seen(rows, baseline)


def seen(rows: list[dict], baseline: list[dict]) -> dict[str, float]:
    """The monitors, and how often the proxy prefers the k-th answer to a prompt to pi_0's."""
    rate = wins(column(rows, "proxy_reward"), column(baseline, "proxy_reward")).mean()
    return monitors.numbers(rows) | {"proxy_win_rate": round(float(rate), 4)}


def verdicts(rows: list[dict]) -> dict[str, float]:
    """The judge's mean preference over pi_0 on each prompt where one could be read."""
    told: dict[str, list[float]] = {}
    for row in rows:
        if row["judge_preference"] is not None:
            told.setdefault(row["id"], []).append(row["judge_preference"])
    return {name: float(np.mean(each)) for name, each in told.items()}


def judged(rows: list[dict], offline: list[dict], params: Any) -> dict[str, Any]:
    """What the judge prefers, with intervals over prompts; nothing where none was asked.

    Raises ValueError where no verdict was read.
    """
    if "judge_preference" not in rows[0]:
        return {}
    mine, theirs = verdicts(rows), verdicts(offline)
    both = [name for name in mine if name in theirs]
    if not both:
        asked = len({row["id"] for row in rows})
        raise ValueError(
            f"the judge gave no readable verdict on {asked} {rows[0]['split']} prompts; take one with a longer context, or shorter answers"
        )
    quantities = {
        "judge_win_rate": np.array(list(mine.values())),
        "judge_over_offline": np.array([mine[name] - theirs[name] for name in both]),
    }
    facts = {
        k: v
        for name, each in quantities.items()
        for k, v in ((name, round(float(each.mean()), 4)), (f"{name}_interval", interval(each, params)))
    }
    return facts | {"judge_unreadable": sum(row["judge_preference"] is None for row in rows)}


def main(params: Any, measures: Path, baseline: Path, offline: Path, *, metrics: Path) -> None:
    mine, pi0, rival = (split(path, "test") for path in (measures, baseline, offline))
    test = numbers(mine, pi0, rival, params) | judged(mine, rival, params)
    mine, pi0, rival = (split(path, "validation") for path in (measures, baseline, offline))
    result = {"test": test, "validation": seen(mine, pi0) | judged(mine, rival, params)}
    metrics.write_text(json.dumps({measures.stem: result}, indent=2) + "\n")
    told = (
        f"gold reward {test['gold_reward']} {test['gold_reward_interval']}, gain {test['gain']} {test['gain_interval']},"
        if "gain" in test
        else ""
    )
    print(
        f"evaluate {measures.stem}: {test['answers']} answers to {test['prompts']} prompts, {told} proxy {test['proxy_reward']}, KL {test['kl']} nats"
    )
