"""Make pairs of each prompt's completions, by default the best against the worst, chosen and labelled by the
length-penalised reward.

Reads   scores: shards of candidates with reward (in the scorer's unit; null where the scorer could not tell, and then
        the candidate is not used); `iteration`: the sampled policy's name, pi0, pi1, ...
Writes  pairs (SCHEMA; TRL's names); metrics: pairs looked at, pairs out, drops by name, candidates left out by name,
        and an audit of the pairs
Params  rank.pairing: best_worst, best_second, best_random (drawn by seed, iteration and prompt), all_pairs (whose
        margin suffices), top_bottom (the rank.top_k best against as many worst, best against worst), across (the
        widest margin between a completion of the policy and one of its rival); rank.length_penalty (lambda, reward per
        character), rank.min_margin (reward), rank.truncated; generate.n and from_rival, seed; dvc.yaml reads
        rank.scorer
Source  RLHF Workflow, arXiv 2405.07863, section 3.3: best and worst of n by r - lambda * |a|, |a| in characters; equal
        texts are dropped
"""

import hashlib
import json
import math
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stages import shards
from stages.messages import MESSAGES

INPUT_COLUMNS = ["id", "prompt", "sample", "temperature", "completion", "finished", "reward"]
SCHEMA = pa.schema(
    [("id", pa.string()), ("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES), ("margin", pa.float64())]
    + [("chosen_finished", pa.bool_()), ("rejected_finished", pa.bool_()), ("made_in", pa.string())]
)
DROPS = ["too_few_usable", "truncated_winner", "identical_texts", "tie", "below_margin"]


class Rules(NamedTuple):
    """The section `rank` of params.yaml."""

    pairing: str = "best_worst"
    top_k: int = 1
    length_penalty: float = 0.0
    min_margin: float = 0.0
    truncated: str = "keep"
    own: int = 0
    """The policy's completions are the first so many of each prompt, the others its rival's; for `across`."""


def by_prompt(candidates: list[dict], n: int) -> dict[str, list[dict]]:
    """Candidates grouped by prompt id, by sample.

    Raises ValueError for a reward that is no number, or a prompt without its n samples.
    """
    groups = defaultdict(list)
    for row in sorted(candidates, key=lambda row: (row["id"], row["sample"])):
        if row["reward"] is not None and not math.isfinite(row["reward"]):
            told = f"reward is {row['reward']}"
            remedy = "run score again, nothing can be ranked by it"
            raise ValueError(f"prompt {row['id']} sample {row['sample']}: {told}; {remedy}")
        groups[row["id"]].append(row)
    for prompt_id, group in groups.items():
        samples = [row["sample"] for row in group]
        if samples != list(range(n)):
            rule = f"generate.n = {n} wants 0 to {n - 1}"
            raise ValueError(f"prompt {prompt_id}: samples {samples}, {rule}; generate again")
    return groups


def proposed(
    usable: list[dict], winners: list[dict], value: dict[int, float], rules: Rules, draw: int
) -> list[tuple[dict, dict]]:
    """The pairs (better, worse) that the strategy looks at, the first sample where several tie; `winners` are the
    usable rows that may be chosen.
    """
    worth = lambda row: value[row["sample"]]  # noqa: E731
    if rules.pairing == "across":
        pairs = [(a, b) for a in winners for b in usable if (a["sample"] < rules.own) != (b["sample"] < rules.own)]
        return [max(pairs, key=lambda pair: worth(pair[0]) - worth(pair[1]))] if pairs else []
    best, falling = max(winners, key=worth), sorted(usable, key=worth, reverse=True)
    below = [row for row in usable if row is not best and worth(row) <= worth(best)]
    if rules.pairing == "all_pairs":
        return list(combinations(falling, 2))
    if rules.pairing == "top_bottom":  # always so many pairs: one whose better side may not win is dropped by name
        k = min(rules.top_k, len(usable) // 2)
        top = sorted(falling, key=lambda row: row not in winners)[:k]
        return list(zip(top, reversed(falling[-k:]), strict=True))
    if not below:  # nothing but answers that may only be rejected, and are better
        return [(falling[0], best)]
    if rules.pairing == "best_worst":
        return [(best, min(below, key=worth))]
    if rules.pairing == "best_second":
        return [(best, max(below, key=worth))]
    return [(best, below[draw % len(below)])]  # best_random


def left_out(row: dict, truncated: str) -> str:
    """Why a candidate may stand in no pair, or nothing."""
    if row["reward"] is None:
        return "unscored"
    if not row["completion"].strip():
        return "empty"
    return "truncated" if truncated == "drop" and not row["finished"] else ""


def outcomes(group: list[dict], rules: Rules, draw: int = 0) -> list[tuple[dict, dict, float] | str]:
    """(chosen, rejected, margin) by the penalised reward, or the name of the rule that drops it, for each pair that
    was looked at; one name for none.
    """
    usable = [row for row in group if not left_out(row, rules.truncated)]
    value = {row["sample"]: row["reward"] - rules.length_penalty * len(row["completion"]) for row in usable}
    winners = [row for row in usable if row["finished"] or rules.truncated == "keep"]
    if len(usable) < 2 or not winners:
        return ["too_few_usable"]
    found: list[tuple[dict, dict, float] | str] = []
    for better, worse in proposed(usable, winners, value, rules, draw):
        margin = value[better["sample"]] - value[worse["sample"]]
        found.append(fault(better, worse, margin, better in winners, rules) or (better, worse, margin))
    return found or ["too_few_usable"]


def fault(better: dict, worse: dict, margin: float, may_win: bool, rules: Rules) -> str:
    """The rule that drops a pair, or nothing."""
    # those that may be chosen are all among the worst: the better ones were cut off
    if not may_win or margin < 0 or better is worse:
        return "truncated_winner"
    if better["completion"].strip() == worse["completion"].strip():
        return "identical_texts"
    if margin == 0:
        return "tie"
    return "below_margin" if margin <= rules.min_margin else ""


def rank(groups: dict[str, list[dict]], iteration: str, rules: Rules, seed: int = 0) -> tuple[list[dict], Counter]:
    """The pairs, prompts by id, and drops by name; each pair looked at is one of both.

    Raises ValueError when prompts leave no pair.
    """
    rows, drops, number = [], Counter(dict.fromkeys(DROPS, 0)), iteration.replace("pi", "t")  # draws are by t0 of pi0
    for prompt_id, group in groups.items():
        drawn_for = f"{seed}:{number}:{prompt_id}:rank"
        draw = int.from_bytes(hashlib.sha256(drawn_for.encode()).digest()[:4], "big")
        for outcome in outcomes(group, rules, draw):
            if isinstance(outcome, str):
                drops[outcome] += 1
            else:
                rows.append(pair(prompt_id, iteration, rules, *outcome))
    if groups and not rows:
        told = f"{len(groups)} prompts, no pair: drops {dict(drops)}"
        raise ValueError(f"{told}; are all rewards equal, or rank.min_margin = {rules.min_margin} too high?")
    return rows, drops


def pair(prompt_id: str, iteration: str, rules: Rules, better: dict, worse: dict, margin: float) -> dict[str, Any]:
    """A row of SCHEMA, and for the audit the temperatures of both sides; its id names the samples where a prompt has
    more than one pair.
    """
    name = f"{prompt_id}:{better['sample']}-{worse['sample']}"
    if rules.pairing.startswith(("best_", "across")):
        name = prompt_id
    return {
        "id": name,
        "prompt": better["prompt"],
        "chosen": [{"role": "assistant", "content": better["completion"]}],
        "rejected": [{"role": "assistant", "content": worse["completion"]}],
        "margin": margin,
        "chosen_finished": better["finished"],
        "rejected_finished": worse["finished"],
        "made_in": iteration,
        "temperatures": (better["temperature"], worse["temperature"]),
    }


def audit(rows: list[dict]) -> dict[str, Any]:
    """What the pairs are like: margins, lengths in characters, how often the longer one is chosen, and which
    temperature makes either side.

    margin_histogram counts the pairs in ten equal steps from the lowest margin to the highest. Empty without pairs,
    after a stop.
    """
    if not rows:
        return {}
    lengths = [(len(r["chosen"][0]["content"]), len(r["rejected"][0]["content"])) for r in rows]
    margins = sorted(r["margin"] for r in rows)
    facts = {
        "margin": fmean(margins),
        "chosen_characters": fmean(c for c, _ in lengths),
        "rejected_characters": fmean(r for _, r in lengths),
        "longer_is_chosen": fmean(c > r for c, r in lengths),
        "chosen_finished": fmean(r["chosen_finished"] for r in rows),
        "rejected_finished": fmean(r["rejected_finished"] for r in rows),
    }
    for name, share in (("low", 0), ("quartile", 0.25), ("median", 0.5), ("high", 1)):
        facts[f"margin_{name}"] = margins[int(share * (len(margins) - 1))]
    for side, name in enumerate(("chosen", "rejected")):
        made = Counter(r["temperatures"][side] for r in rows)
        facts |= {f"{name}_at_{temperature:g}": count / len(rows) for temperature, count in sorted(made.items())}
    step = (margins[-1] - margins[0]) / 10 or 1.0
    bins = Counter(min(9, int((margin - margins[0]) / step)) for margin in margins)
    return {k: round(v, 4) for k, v in facts.items()} | {"margin_histogram": [bins[k] for k in range(10)]}


def main(params: Any, scores: Path, iteration: str, *, pairs: Path, metrics: Path) -> None:
    candidates = shards.read(scores, INPUT_COLUMNS)
    groups = by_prompt(candidates, params.generate.n)
    own = params.generate.n - params.generate.from_rival
    rules = Rules(
        params.rank.pairing,
        params.rank.top_k,
        params.rank.length_penalty,
        params.rank.min_margin,
        params.rank.truncated,
        own,
    )
    rows, drops = rank(groups, iteration, rules, params.seed)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), pairs)
    unusable = Counter(left_out(row, rules.truncated) for row in candidates)
    facts = {
        "prompts": len(groups),
        "rows_in": len(rows) + drops.total(),
        "rows_out": len(rows),
        "drops": drops,
        "candidates": len(candidates),
        "left_out": {name: unusable[name] for name in ("unscored", "empty", "truncated")},
        "audit": audit(rows),
    }
    metrics.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    told = f"{len(candidates)} candidates of {len(groups)} prompts -> {len(rows)} pairs"
    print(f"rank {iteration}: {told}, drops {dict(drops)}")
