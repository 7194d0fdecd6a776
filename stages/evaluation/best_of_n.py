"""What the best of n answers is worth when a signal picks it, so that n is chosen before money is spent and
over-optimisation is seen.

Reads   scores: for each signal, a folder of shards with its rewards of the same N answers of pi_0 to each prompt; the
        folder's parent is named as the signal
Writes  curves: for each n = 1, 2, 4, ... N the KL bound log n - (n - 1) / n in nats, and by signal the mean yardstick
        of its best of n with interval
Params  evaluate.gold, evaluate.resamples, evaluate.confidence; seed
Source  Lambert's RLHF book, chapter on rejection sampling; the bound: Beirami et al. 2024, arXiv 2401.01879;
        over-optimisation: Gao et al. 2023

The yardstick is r* where there is one, else the judge. The mean over all subsets of n of the N answers is exact, not
sampled: the k-th best of N (from the worst) is the best of a subset in C(k - 1, n - 1) of C(N, n) cases. Answers that
tie share their yardstick.
"""

import json
from math import comb, log
from pathlib import Path
from typing import Any

import numpy as np

from stages import shards
from stages.evaluation import bootstrap
from stages.signals import annotator


def sizes(most: int) -> list[int]:
    """1, 2, 4, ... up to N, and N."""
    return sorted({1 << k for k in range(most.bit_length()) if 1 << k <= most} | {most})


def best_of(rewards: np.ndarray, worth: np.ndarray, n: int) -> float:
    """Expected worth of the answer with the highest reward among n of the N, drawn without replacement; both (N,)."""
    shared = np.array([worth[rewards == reward].mean() for reward in rewards])
    ordered = shared[np.argsort(rewards, kind="stable")]
    weights = np.array([comb(k, n - 1) for k in range(len(rewards))]) / comb(len(rewards), n)
    return float(ordered @ weights)


def by_prompt(rows: list[dict], values: list[float]) -> dict[str, np.ndarray]:
    """Values (N,) of each prompt's answers, by sample.

    Raises ValueError where prompts have unlike numbers of answers.
    """
    groups: dict[str, dict[int, float]] = {}
    for row, value in zip(rows, values, strict=True):
        groups.setdefault(row["id"], {})[row["sample"]] = value
    if len({len(group) for group in groups.values()}) > 1:
        raise ValueError("prompts have unlike numbers of answers, best of n has no common N; generate again")
    ordered = {name: [group[sample] for sample in sorted(group)] for name, group in sorted(groups.items())}
    return {name: np.array(group, np.float64) for name, group in ordered.items()}


def curve(rewards: dict[str, np.ndarray], worth: dict[str, np.ndarray], params: Any) -> list[dict[str, Any]]:
    """One point per n. Raises ValueError where a signal did not score the yardstick's answers."""
    if {name: len(r) for name, r in rewards.items()} != {name: len(w) for name, w in worth.items()}:
        raise ValueError("a signal and the yardstick did not score the same answers; score both again")
    points, settings = [], (params.evaluate.resamples, params.evaluate.confidence, params.seed)
    for n in sizes(len(next(iter(worth.values())))):
        each = np.array([best_of(rewards[name], worth[name], n) for name in worth])
        bound, mean = log(n) - (n - 1) / n, float(each.mean())
        interval = bootstrap.interval(each, *settings)
        points.append({"n": n, "kl": round(bound, 4), "mean": round(mean, 4), "interval": interval})
    return points


def rewards_of(rows: list[dict]) -> dict[str, np.ndarray]:
    """A signal's rewards by prompt; an answer that it could not judge counts as worse than all others."""
    least = min((row["reward"] for row in rows if row["reward"] is not None), default=0.0) - 1
    return by_prompt(rows, [least if row["reward"] is None else row["reward"] for row in rows])


def golds_of(rows: list[dict]) -> dict[str, np.ndarray]:
    """r* by prompt."""
    return by_prompt(rows, [annotator.gold(row["prompt"], row["completion"], row["finished"]) for row in rows])


def main(params: Any, scores: list[Path], *, curves: Path) -> None:
    rows = {path.parent.name: shards.read(path) for path in scores}
    rewards = {name: rewards_of(mine) for name, mine in rows.items()}
    yardstick = "judge" if params.evaluate.gold == "none" else "r*"
    worth = rewards["judge"] if yardstick == "judge" else golds_of(next(iter(rows.values())))
    best = curve(worth, worth, params)
    made = {name: curve(mine, worth, params) for name, mine in rewards.items()} | {f"{yardstick} itself": best}
    found = {"yardstick": yardstick, "prompts": len(worth), "signals": made}
    curves.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    told = ", ".join(f"{name} {points[-1]['mean']:.2f}" for name, points in made.items())
    print(f"best_of_n: {yardstick} of the best of {best[-1]['n']} of {len(worth)} prompts: {told}")
