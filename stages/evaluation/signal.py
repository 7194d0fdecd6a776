"""Say how far one preference signal can be trusted: against the labels of held-out pairs, against r*, on RewardBench,
and against mere length.

Reads   name: the signal's; heldout, bench: pairs; judged: its rewards of their sides, the shards heldout.parquet and
        reward_bench.parquet, and where there are choices reward_bench_2.parquet; choices: RewardBench 2's prompts;
        sampled: shards of its rewards of n answers of pi_0 to each prompt
Writes  metrics: accuracies, ties counted half, each with its number of pairs and Wilson's interval: against all labels
        and those of each set, margin and difference of length; the longer answer's beside it; calibration; RewardBench
        by subset and section; RewardBench 2 by subset; correlation with length; position bias. Pairs that the signal
        could not judge are counted as `unscored` and left out. curves: what the pictures are drawn from
Params  evaluate.gold, evaluate.confidence; pairwise.ranking, implicit.form (they decide whether a reward states a
        probability)
Source  expected calibration error: Guo et al. 2017, ten bins of equal width; correlation by prompt: RLHF Workflow,
        arXiv 2405.07863, figure 3
"""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from stages import shards
from stages.evaluation import agreement, best_answer, calibration


def with_rewards(pairs: list[dict], scored: list[dict]) -> tuple[list[dict], int]:
    """Pairs with `reward` of (chosen, rejected), and how many had none.

    Raises ValueError where a pair was not given to the signal.
    """
    known = {(row["id"], row["sample"]): row["reward"] for row in scored}
    lost = [row["id"] for row in pairs if (row["id"], 0) not in known or (row["id"], 1) not in known]
    if lost or len(known) != 2 * len(pairs):
        counts = f"{len(pairs)} pairs, {len(known)} scored sides, {len(lost)} pairs without ({lost[:1]})"
        raise ValueError(f"{counts}; score them again")
    rows = [row | {"reward": (known[row["id"], 0], known[row["id"], 1])} for row in pairs]
    scored_both = [row for row in rows if None not in row["reward"]]
    return scored_both, len(rows) - len(scored_both)


def with_answers(choices: list[dict], scored: list[dict]) -> tuple[list[dict], int]:
    """Choices with `rewards` of their answers, and how many lack one. Raises ValueError where one was not given."""
    known = {(row["id"], row["sample"]): row["reward"] for row in scored}
    wanted = sum(len(row["answers"]) for row in choices)
    if len(known) != wanted:
        raise ValueError(f"{len(choices)} choices have {wanted} answers, {len(known)} are scored; score them again")
    rows = [row | {"rewards": [known[row["id"], k] for k in range(len(row["answers"]))]} for row in choices]
    whole = [row for row in rows if None not in row["rewards"]]
    return whole, len(rows) - len(whole)


def on_heldout(rows: list[dict], bins: list[dict[str, float]], params: Any) -> dict[str, Any]:
    """Every accuracy on the held-out pairs, by name; with the calibration error where the signal states
    probabilities.
    """
    confidence = params.evaluate.confidence
    facts = {"labels": agreement.agreement(rows, confidence)}
    if bins:
        facts["labels"]["calibration_error"] = calibration.error(bins)
    facts["longer against labels"] = agreement.longer(rows, confidence)
    if params.evaluate.gold != "none":
        facts |= agreement.against_gold(rows, confidence)
    return facts | {name: agreement.agreement(part, confidence) for name, part in agreement.parts(rows).items()}


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
            correlation = round(float(np.corrcoef(reward, tokens)[0, 1]), 4)
            found.append({"correlation": correlation, "mean_tokens": round(float(tokens.mean()), 2)})
    return found


def verdicts(rows: list[dict]) -> dict[str, Any]:
    """What a signal that compares says of itself: verdicts read and not, position bias, how often the place named
    first wins; empty for others.
    """
    if not rows or "compared" not in rows[0]:
        return {}
    heard = [row for row in rows if row["compared"]]
    facts = {"candidates_compared": len(heard), "unreadable": sum(row["unreadable"] for row in rows)}
    if not heard:
        return facts
    return facts | {name: round(fmean(row[name] for row in heard), 4) for name in ("position_bias", "first_position")}


def main(
    params: Any,
    name: str,
    heldout: Path,
    bench: Path,
    choices: Path,
    judged: Path,
    sampled: Path,
    *,
    metrics: Path,
    curves: Path,
) -> None:
    sides = {part: pq.read_table(judged / f"{part}.parquet").to_pylist() for part in ("heldout", "reward_bench")}
    rows, unscored = with_rewards(pq.read_table(heldout).to_pylist(), sides["heldout"])
    benched, unscored_bench = with_rewards(pq.read_table(bench).to_pylist(), sides["reward_bench"])
    among, answered = pq.read_table(choices).to_pylist(), judged / "reward_bench_2.parquet"
    given = pq.read_table(answered).to_pylist() if among else []
    chosen, unscored_choices = with_answers(among, given)
    if not rows:
        remedy = f"look at {judged}/heldout.parquet, is the judge's answer ever A or B?"
        raise ValueError(f"{name}: none of {unscored} held-out pairs has a verdict; {remedy}")
    stated = [calibration.probability(row, name, params) for row in rows]
    bins = calibration.reliability([p for p in stated if p is not None])
    answers = shards.read(sampled)
    lengths = length_bias(answers)
    facts: dict[str, Any] = {
        "heldout": on_heldout(rows, bins, params),
        "unscored": unscored + unscored_bench + unscored_choices,
    }
    if benched:
        facts["reward_bench"] = agreement.on_bench(benched, params.evaluate.confidence)
    if chosen:
        facts["reward_bench_2"] = best_answer.scores(chosen, params.evaluate.confidence)
    mean = round(fmean(fact["correlation"] for fact in lengths), 4) if lengths else None
    facts["length"] = {"correlation": mean, "prompts": len(lengths)}
    if heard := verdicts(sides["heldout"] + answers):
        facts["verdicts"] = heard
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    curves.write_text(json.dumps({"reliability": bins, "length": lengths}, indent=1) + "\n", encoding="utf-8")
    labels = facts["heldout"]["labels"]
    told = f"{labels['pairs']} held-out pairs, right on {labels['accuracy']:.1%} {labels['interval']}"
    print(f"signal {name}: {told}, correlation with length {mean}")
