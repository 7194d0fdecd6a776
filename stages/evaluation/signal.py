"""Say how far one preference signal can be trusted: against the labels of held-out pairs, against r*, on RewardBench,
and against mere length.

Reads   name: the signal's; heldout, bench: pairs; judged: its rewards of their sides, the shards heldout.parquet and
        reward_bench.parquet; sampled: shards of its rewards of n answers of pi_0 to each prompt
Writes  metrics: accuracies, ties counted half, each with its number of pairs and Wilson's interval: against all labels
        and those of each set, margin and difference of length; the longer answer's beside it; calibration; RewardBench
        by subset and section; correlation with length; position bias. Pairs that the signal could not judge are
        counted as `unscored` and left out. curves: what the pictures are drawn from
Params  evaluate.gold, evaluate.confidence; pairwise.ranking, implicit.form (they decide whether a reward states a
        probability)
Source  expected calibration error: Guo et al. 2017, ten bins of equal width; correlation by prompt: RLHF Workflow,
        arXiv 2405.07863, figure 3
"""

import json
import math
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from stages import shards
from stages.evaluation import reward_bench_sections
from stages.signals import annotator


def with_rewards(pairs: list[dict], scored: list[dict]) -> tuple[list[dict], int]:
    """Pairs with `reward` of (chosen, rejected), and how many had none.

    Raises ValueError where a pair was not given to the signal.
    """
    known = {(row["id"], row["sample"]): row["reward"] for row in scored}
    lost = [row["id"] for row in pairs if (row["id"], 0) not in known or (row["id"], 1) not in known]
    if lost or len(known) != 2 * len(pairs):
        raise ValueError(
            f"{len(pairs)} pairs, {len(known)} scored sides, {len(lost)} pairs without ({lost[:1]}); score them again"
        )
    rows = [row | {"reward": (known[row["id"], 0], known[row["id"], 1])} for row in pairs]
    scored_both = [row for row in rows if None not in row["reward"]]
    return scored_both, len(rows) - len(scored_both)


def right(first: float, second: float) -> float:
    """1 if the first, which should be higher, is; a half for a tie."""
    return 0.5 if first == second else float(first > second)


def accuracy(hits: list[float], confidence: float) -> dict[str, Any]:
    """The share of hits with Wilson's interval, which stays within 0 and 1."""
    n, share, z = len(hits), fmean(hits), NormalDist().inv_cdf((1 + confidence) / 2)
    centre, half = (
        (share + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2),
    )
    return {"accuracy": round(share, 4), "interval": [round(centre - half, 4), round(centre + half, 4)], "pairs": n}


def extra(row: dict) -> int:
    """By how many characters the chosen answer is the longer."""
    return len(row["chosen"][0]["content"]) - len(row["rejected"][0]["content"])


def binned(values: list[float], most: int = 4) -> list[tuple[float, float]]:
    """At most `most` ranges with about as many values each, or one range per value where these are few."""
    distinct = sorted(set(values))
    if len(distinct) <= most:
        return [(value, value) for value in distinct]
    parts = [part for part in np.array_split(np.array(sorted(values)), most) if len(part)]
    lows = sorted({float(part[0]) for part in parts})
    return [(low, max(v for v in distinct if v < high)) for low, high in zip(lows, [*lows[1:], math.inf], strict=True)]


def parts(rows: list[dict]) -> dict[str, list[dict]]:
    """The pairs of each set, where there are several, of each margin, and of each difference of length, in characters."""
    found = {
        f"source {name}": [row for row in rows if row["source"] == name]
        for name in sorted({row["source"] for row in rows})
    }
    found = found if len(found) > 1 else {}
    for name, value in (("margin", lambda row: row["margin"]), ("chosen longer by", extra)):
        known = [row for row in rows if value(row) is not None]
        for low, high in binned([value(row) for row in known]):
            told = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            found[f"{name} {told}"] = [row for row in known if low <= value(row) <= high]
    return found


def probability(row: dict, name: str, params: Any) -> float | None:
    """P(chosen is better) as the signal states it; None for a signal whose rewards are no log-odds."""
    if name == "longer" or (name == "implicit" and params.implicit.form != "ratio"):
        return None
    if name in ("preference_model", "judge", "self_judge") and params.pairwise.ranking == "all_pairs":
        return row["reward"][0]
    return 1 / (1 + math.exp(-max(-500.0, row["reward"][0] - row["reward"][1])))


def reliability(stated: list[float]) -> list[dict[str, float]]:
    """Stated probabilities that the chosen answer wins, by the confidence in the verdict: mean confidence and share
    right of each of ten bins.
    """
    bins: dict[int, list[tuple[float, float]]] = {}
    for p in stated:
        confidence = max(p, 1 - p)
        bins.setdefault(min(int(confidence * 10), 9), []).append((confidence, right(p, 0.5)))
    return [
        {"confidence": fmean(c for c, _ in bins[k]), "right": fmean(r for _, r in bins[k]), "pairs": len(bins[k])}
        for k in sorted(bins)
    ]


def calibration_error(bins: list[dict[str, float]]) -> float:
    """How far the share of right verdicts is from the confidence in them, in the mean over pairs."""
    return round(sum(abs(b["confidence"] - b["right"]) * b["pairs"] for b in bins) / sum(b["pairs"] for b in bins), 4)


def against_gold(rows: list[dict], confidence: float) -> dict[str, Any]:
    """Accuracy against the order of r*, the signal's and the labels' own, on the pairs where r* sees a difference."""
    golds = [
        (
            row,
            *(
                annotator.gold(row["prompt"], row[side][0]["content"], row[f"{side}_finished"])
                for side in ("chosen", "rejected")
            ),
        )
        for row in rows
    ]
    apart = [(row, c, r) for row, c, r in golds if c != r]
    mine = [right(*row["reward"][:: 1 if c > r else -1]) for row, c, r in apart]
    return (
        {
            "gold": accuracy(mine, confidence),
            "labels against gold": accuracy([float(c > r) for _, c, r in apart], confidence),
        }
        if apart
        else {}
    )


def on_heldout(rows: list[dict], bins: list[dict[str, float]], params: Any) -> dict[str, Any]:
    """Every accuracy on the held-out pairs, by name."""
    confidence = params.evaluate.confidence
    facts = {"labels": accuracy([right(*row["reward"]) for row in rows], confidence)}
    if bins:
        facts["labels"]["calibration_error"] = calibration_error(bins)
    facts["longer against labels"] = accuracy([right(extra(row), 0) for row in rows], confidence)
    facts |= against_gold(rows, confidence) if params.evaluate.gold != "none" else {}
    return facts | {
        name: accuracy([right(*row["reward"]) for row in part], confidence) for name, part in parts(rows).items()
    }


def on_bench(rows: list[dict], confidence: float) -> dict[str, Any]:
    """RewardBench by section and by subset."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["subset"], []).append(right(*row["reward"]))
    subsets = {name: accuracy(hits, confidence) for name, hits in sorted(groups.items())}
    return {
        "sections": reward_bench_sections.scores({n: (fmean(hits), len(hits)) for n, hits in groups.items()}),
        "subsets": subsets,
    }


def length_bias(rows: list[dict]) -> list[dict[str, float]]:
    """Each prompt's Pearson correlation of reward and length in tokens, and the mean length; prompts where either does
    not vary have none.
    """
    groups: dict[str, list[dict]] = {}
    for row in rows:
        if row["reward"] is not None:
            groups.setdefault(row["id"], []).append(row)
    found = []
    for group in groups.values():
        reward, tokens = (np.array([row[name] for row in group], np.float64) for name in ("reward", "tokens"))
        if np.ptp(reward) > 0 and np.ptp(tokens) > 0:
            found.append(
                {
                    "correlation": round(float(np.corrcoef(reward, tokens)[0, 1]), 4),
                    "mean_tokens": round(float(tokens.mean()), 2),
                }
            )
    return found


def verdicts(rows: list[dict]) -> dict[str, Any]:
    """What a signal that compares says of itself: verdicts read and not, position bias, how often the place named
    first wins; empty for others.
    """
    heard = [row for row in rows if row.get("compared")]
    if not rows or "compared" not in rows[0]:
        return {}
    bias = (
        {name: round(fmean(row[name] for row in heard), 4) for name in ("position_bias", "first_position")}
        if heard
        else {}
    )
    return {"candidates_compared": len(heard), "unreadable": sum(row["unreadable"] for row in rows)} | bias


def main(
    params: Any,
    name: str,
    heldout: Path,
    bench: Path,
    judged: Path,
    sampled: Path,
    *,
    metrics: Path,
    curves: Path,
) -> None:
    sides = {part: pq.read_table(judged / f"{part}.parquet").to_pylist() for part in ("heldout", "reward_bench")}
    rows, unscored = with_rewards(pq.read_table(heldout).to_pylist(), sides["heldout"])
    benched, unscored_bench = with_rewards(pq.read_table(bench).to_pylist(), sides["reward_bench"])
    if not rows:
        told = f"{name}: none of {unscored} held-out pairs has a verdict"
        raise ValueError(f"{told}; look at {judged}/heldout.parquet, is the judge's answer ever A or B?")
    stated = [probability(row, name, params) for row in rows]
    bins = reliability([p for p in stated if p is not None])
    answers = shards.read(sampled)
    lengths = length_bias(answers)
    facts: dict[str, Any] = {"heldout": on_heldout(rows, bins, params), "unscored": unscored + unscored_bench}
    facts |= {"reward_bench": on_bench(benched, params.evaluate.confidence)} if benched else {}
    mean = round(fmean(fact["correlation"] for fact in lengths), 4) if lengths else None
    facts["length"] = {"correlation": mean, "prompts": len(lengths)}
    facts |= {"verdicts": told} if (told := verdicts(sides["heldout"] + answers)) else {}
    metrics.write_text(json.dumps(facts, indent=2) + "\n")
    curves.write_text(json.dumps({"reliability": bins, "length": lengths}, indent=1) + "\n")
    labels = facts["heldout"]["labels"]
    print(
        f"signal {name}: {labels['pairs']} held-out pairs, right on {labels['accuracy']:.1%} {labels['interval']}, correlation with length {mean}"
    )
