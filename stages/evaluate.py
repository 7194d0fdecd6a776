"""Turn a policy's measured answers into numbers with intervals, paired against pi_0 on the same prompts.

Reads   measures: a policy's answers with proxy_reward, logp_policy, logp_reference; baseline: the same of pi_0
Writes  metrics: {policy: numbers}; on the test prompts gold reward, gain and win rate over pi_0, proxy reward, length, share finished,
        KL; on the validation prompts the proxy reward
Params  evaluate.gold, evaluate.resamples, evaluate.confidence; seed
Source  intervals: percentile bootstrap over prompts (Efron 1979); KL(pi || pi_0) by the mean of log pi - log pi_0 over the policy's own
        samples at temperature 1, unbiased and in nats per answer; the gold reward is stages/annotator.py, which training never reads
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from stages import annotator


def gold(row: dict) -> float:
    """r* of an answer; what the users of the conversation said is the prompt."""
    prompt = "\n".join(m["content"] for m in row["prompt"] if m["role"] == "user")
    return annotator.gold_reward(prompt, row["completion"], row["finished"])


def interval(values: np.ndarray, resamples: int, confidence: float, seed: int) -> list[float]:
    """[low, high] of the mean of `values` (N,), by resampling its rows: the same prompts are drawn for every quantity."""
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    edge = (1 - confidence) / 2
    return np.quantile(values[draws].mean(axis=1), [edge, 1 - edge]).round(4).tolist()


def split(path: Path, name: str) -> list[dict]:
    return sorted((row for row in pq.read_table(path).to_pylist() if row["split"] == name), key=lambda row: row["id"])


def wins(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """1 where mine is higher, 0 where lower, a half where equal; shape (N,)."""
    return (np.sign(mine - theirs) + 1) / 2


def column(rows: list[dict], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=np.float64)


def numbers(rows: list[dict], baseline: list[dict], params: Any) -> dict[str, Any]:
    """Every number of one policy on the test prompts. Raises ValueError unless both policies answered the same prompts."""
    if [row["id"] for row in rows] != [row["id"] for row in baseline]:
        raise ValueError("the policy and pi_0 answered different prompts, which cannot be paired; run respond again for both")
    bootstrap = {"resamples": params.evaluate.resamples, "confidence": params.evaluate.confidence, "seed": params.seed}
    result: dict[str, Any] = {"prompts": len(rows)}
    if params.evaluate.gold != "none":
        mine, theirs = (np.array([gold(row) for row in side]) for side in (rows, baseline))
        result |= {"gold_reward": mine.mean(), "gold_interval": interval(mine, **bootstrap)}
        result |= {"gold_gain": (mine - theirs).mean(), "gain_interval": interval(mine - theirs, **bootstrap)}
        result |= {"win_rate": wins(mine, theirs).mean(), "win_interval": interval(wins(mine, theirs), **bootstrap)}
    proxy = column(rows, "proxy_reward")
    result |= {"proxy_reward": proxy.mean(), "proxy_win_rate": wins(proxy, column(baseline, "proxy_reward")).mean()}
    result |= {"tokens": float(np.mean([len(row["token_ids"]) for row in rows])), "finished": column(rows, "finished").mean()}
    result["kl"] = (column(rows, "logp_policy") - column(rows, "logp_reference")).mean()
    return {k: round(float(v), 4) if isinstance(v, float | np.floating) else v for k, v in result.items()}


def main(params: Any, measures: Path, baseline: Path, *, metrics: Path) -> None:
    test = numbers(split(measures, "test"), split(baseline, "test"), params)
    validation = column(split(measures, "validation"), "proxy_reward")
    result = {"test": test, "validation": {"proxy_reward": round(float(validation.mean()), 4)}}
    metrics.write_text(json.dumps({measures.stem: result}, indent=2) + "\n")
    told = f"gold reward {test['gold_reward']} {test['gold_interval']}, gain {test['gold_gain']} {test['gain_interval']}" if "gold_gain" in test else ""
    print(f"evaluate {measures.stem}: {test['prompts']} prompts, {told} proxy {test['proxy_reward']}, KL {test['kl']} nats")
