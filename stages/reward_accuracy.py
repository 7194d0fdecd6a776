"""Say how well the reward model judges pairs it has not seen: against the annotator's labels, and against r* where there is one.

Reads   judged: held-out pairs with reward_chosen, reward_rejected
Writes  metrics: accuracies, ties counted half, with their binomial standard error: against all labels, those of each set, where the chosen answer is
        the longer and the shorter; the floor that prefers the longer; the calibration error of sigmoid(reward_chosen - reward_rejected)
Params  evaluate.gold
Source  expected calibration error: Guo et al. 2017, ten bins of equal width
"""

import json
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq

from stages import annotator


def right(first: float, second: float) -> float:
    """1 if the first, which should be higher, is; a half for a tie."""
    return 0.5 if first == second else float(first > second)


def gold(row: dict, side: str) -> float:
    prompt = "\n".join(m["content"] for m in row["prompt"] if m["role"] == "user")
    return annotator.gold_reward(prompt, row[side][0]["content"], row[f"{side}_finished"])


def accuracy(hits: list[float]) -> dict[str, float]:
    share = fmean(hits)
    return {"accuracy": round(share, 4), "standard_error": round(math.sqrt(share * (1 - share) / len(hits)), 4), "pairs": len(hits)}


def against_labels(rows: list[dict]) -> dict[str, float]:
    return accuracy([right(row["reward_chosen"], row["reward_rejected"]) for row in rows])


def calibration_error(rows: list[dict]) -> float:
    """How far the share of right verdicts is from the confidence in them, sigmoid(|margin|), in the mean over bins of confidence."""
    bins: dict[int, list[float]] = {}
    for row in rows:
        confidence = 1 / (1 + math.exp(-abs(row["reward_chosen"] - row["reward_rejected"])))
        bins.setdefault(min(int(confidence * 10), 9), []).append(right(row["reward_chosen"], row["reward_rejected"]) - confidence)
    return round(sum(abs(sum(gaps)) for gaps in bins.values()) / len(rows), 4)


def parts(rows: list[dict]) -> dict[str, list[dict]]:
    """The pairs of each set, where there are several, and those whose chosen answer is the longer or the shorter, in characters."""
    names = sorted({row["source"] for row in rows})
    found = {f"labels_of_{name}": [row for row in rows if row["source"] == name] for name in names if len(names) > 1}
    more = [len(row["chosen"][0]["content"]) - len(row["rejected"][0]["content"]) for row in rows]
    found |= {f"where_chosen_is_{word}": [row for row, m in zip(rows, more, strict=True) if m * sign > 0] for word, sign in (("longer", 1), ("shorter", -1))}
    return {name: part for name, part in found.items() if part}


def agreement(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Accuracy against the true order of r*, of the reward model and of the labels themselves, on the pairs where r* sees a difference."""
    golds = [(row, gold(row, "chosen"), gold(row, "rejected")) for row in rows]
    apart = [(row, c, r) for row, c, r in golds if c != r]
    proxy = [right(*((row["reward_chosen"], row["reward_rejected"])[:: 1 if c > r else -1])) for row, c, r in apart]
    return {"against_gold": accuracy(proxy), "labels_against_gold": accuracy([float(c > r) for _, c, r in apart])}


def main(params: Any, judged: Path, *, metrics: Path) -> None:
    rows = pq.read_table(judged).to_pylist()
    facts: dict[str, Any] = {"against_labels": against_labels(rows) | {"calibration_error": calibration_error(rows)}}
    facts |= {name: against_labels(part) for name, part in parts(rows).items()}
    facts["longer_against_labels"] = accuracy([right(len(row["chosen"][0]["content"]), len(row["rejected"][0]["content"])) for row in rows])
    if params.evaluate.gold != "none":
        facts |= agreement(rows)
    metrics.write_text(json.dumps(facts, indent=2) + "\n")
    told = ", ".join(f"{name} {fact['accuracy']} +- {fact['standard_error']}" for name, fact in facts.items())
    print(f"reward_accuracy: {len(rows)} held-out pairs, {told}")
