"""Turn a policy's measured answers into numbers with intervals, paired against pi_0 and against offline DPO on the same prompts.

Reads   measures: a policy's answers, the same number to each prompt, with proxy_reward, logp_policy, logp_reference; baseline, offline: the same
        of pi_0 and of offline DPO. With judge_preference where `judge` asked
Writes  metrics: {policy: numbers}; on the test prompts gold reward, gain over pi_0 and over offline DPO, win rate over pi_0; on test and on validation
        prompts proxy reward and its win rate, and what shows over-optimisation (stages/monitors.py): length and its correlation with the proxy
        reward, share finished, KL to pi_0, distinct-2, repetition; where judged, the judge's preference over pi_0 and the verdicts it could not read
Params  evaluate.gold, evaluate.resamples, evaluate.confidence; seed; dvc.yaml reads evaluate.reads
Source  intervals: percentile bootstrap over prompts, each with the mean of its answers (Efron 1979); the gold reward is stages/annotator.py, which
        training never reads
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from stages import annotator, bootstrap, monitors


def split(path: Path, name: str) -> list[dict]:
    return sorted((row for row in pq.read_table(path).to_pylist() if row["split"] == name), key=lambda row: (row["id"], row["sample"]))


def wins(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """1 where mine is higher, 0 where lower, a half where equal; shape (N,)."""
    return (np.sign(mine - theirs) + 1) / 2


def column(rows: list[dict], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=np.float64)


def interval(means: np.ndarray, params: Any) -> list[float]:
    """Of the mean over prompts; `means` holds each prompt's own."""
    return bootstrap.interval(means, resamples=params.evaluate.resamples, confidence=params.evaluate.confidence, seed=params.seed)


def golds(rows: list[dict], baseline: list[dict], offline: list[dict], params: Any) -> dict[str, Any]:
    """The gold reward of a policy, and what it gains over the two others, with intervals; the k-th answers to a prompt are compared."""
    sides = (rows, baseline, offline)
    mine, theirs, offlines = (np.array([annotator.gold(row["prompt"], row["completion"], row["finished"]) for row in side]) for side in sides)
    quantities = {"gold_reward": mine, "gain": mine - theirs, "over_offline": mine - offlines, "win_rate": wins(mine, theirs)}
    prompts = len({row["id"] for row in rows})
    means = {name: each.reshape(prompts, -1).mean(axis=1) for name, each in quantities.items()}
    return {k: v for name, each in means.items() for k, v in ((name, each.mean()), (f"{name}_interval", interval(each, params)))}


def numbers(rows: list[dict], baseline: list[dict], offline: list[dict], params: Any) -> dict[str, Any]:
    """Every number of one policy on the test prompts. Raises ValueError unless the three policies answered the same prompts as often."""
    asked, *others = ([(row["id"], row["sample"]) for row in side] for side in (rows, baseline, offline))
    if others != [asked, asked]:
        raise ValueError("the policy, pi_0 and offline DPO answered different prompts, which cannot be paired; run respond again for all")
    result: dict[str, Any] = {"prompts": len({row["id"] for row in rows}), "answers": len(rows)}
    if params.evaluate.gold != "none":
        result |= golds(rows, baseline, offline, params)
    result = {k: round(float(v), 4) if isinstance(v, float | np.floating) else v for k, v in result.items()}
    return result | seen(rows, baseline)


def seen(rows: list[dict], baseline: list[dict]) -> dict[str, float]:
    """The monitors, and how often the proxy prefers the k-th answer to a prompt to pi_0's."""
    rate = wins(column(rows, "proxy_reward"), column(baseline, "proxy_reward")).mean()
    return monitors.numbers(rows) | {"proxy_win_rate": round(float(rate), 4)}


def judged(rows: list[dict], params: Any) -> dict[str, Any]:
    """The mean preference of the judge, with its interval over prompts; nothing where no judge was asked. Raises ValueError where no verdict was read."""
    if "judge_preference" not in rows[0]:
        return {}
    told: dict[str, list[float]] = {row["id"]: [] for row in rows}
    for row in rows:
        told[row["id"]] += [] if row["judge_preference"] is None else [row["judge_preference"]]
    means = np.array([np.mean(each) for each in told.values() if each])
    if not means.size:
        raise ValueError(f"the judge gave no readable verdict on {len(told)} {rows[0]['split']} prompts; take one with a longer context, or shorter answers")
    facts = {"judge_win_rate": round(float(means.mean()), 4), "judge_win_rate_interval": interval(means, params)}
    return facts | {"judge_unreadable": sum(row["judge_preference"] is None for row in rows)}


def main(params: Any, measures: Path, baseline: Path, offline: Path, *, metrics: Path) -> None:
    tested, validated = split(measures, "test"), split(measures, "validation")
    test = numbers(tested, split(baseline, "test"), split(offline, "test"), params)
    validation = seen(validated, split(baseline, "validation"))
    result = {"test": test | judged(tested, params), "validation": validation | judged(validated, params)}
    metrics.write_text(json.dumps({measures.stem: result}, indent=2) + "\n")
    told = f"gold reward {test['gold_reward']} {test['gold_reward_interval']}, gain {test['gain']} {test['gain_interval']}," if "gain" in test else ""
    print(f"evaluate {measures.stem}: {test['answers']} answers to {test['prompts']} prompts, {told} proxy {test['proxy_reward']}, KL {test['kl']} nats")
