"""Keep of each prompt the best completion against the worst, judged and labelled by the length-penalised reward.

Reads   scores: every shard's candidates with reward (in the scorer's unit; null where the scorer could not tell, and then the candidate is not used)
Writes  pairs: one row per prompt (SCHEMA; TRL's names); metrics: prompts in, pairs out, drops by name, and an audit of the pairs
Params  rank.length_penalty (lambda, reward per character), rank.min_margin (reward), rank.truncated, generate.n; dvc.yaml reads rank.scorer
Source  RLHF Workflow, arXiv 2405.07863, section 3.3: best and worst of n by r - lambda * |a|, |a| in characters; equal texts are dropped
"""

import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

INPUT_COLUMNS = ["id", "prompt", "sample", "temperature", "completion", "finished", "reward"]
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [("id", pa.string()), ("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES), ("margin", pa.float64())]
    + [("chosen_finished", pa.bool_()), ("rejected_finished", pa.bool_()), ("made_in", pa.string())]
)
DROPS = ["too_few_usable", "below_margin", "identical_texts"]


def by_prompt(candidates: list[dict], n: int) -> dict[str, list[dict]]:
    """Candidates grouped by prompt id, by sample. Raises ValueError for a reward that is no number, or a prompt without its n samples."""
    groups = defaultdict(list)
    for row in sorted(candidates, key=lambda row: (row["id"], row["sample"])):
        if row["reward"] is not None and not math.isfinite(row["reward"]):
            raise ValueError(f"prompt {row['id']} sample {row['sample']}: reward is {row['reward']}; run score again, nothing can be ranked by it")
        groups[row["id"]].append(row)
    for prompt_id, group in groups.items():
        if [row["sample"] for row in group] != list(range(n)):
            raise ValueError(f"prompt {prompt_id}: samples {[row['sample'] for row in group]}, generate.n = {n} wants 0 to {n - 1}; generate again")
    return groups


def pair(group: list[dict], length_penalty: float, min_margin: float, truncated: str) -> tuple[dict, dict, float] | str:
    """(best, worst, margin) by the penalised reward, the first sample where several tie, or the name of the rule that drops the prompt."""
    scored = [row for row in group if row["reward"] is not None]
    value = {row["sample"]: row["reward"] - length_penalty * len(row["completion"]) for row in scored}
    usable = [row for row in scored if row["completion"].strip() and (row["finished"] or truncated != "drop")]
    winners = [row for row in usable if row["finished"] or truncated == "keep"]
    if len(usable) < 2 or not winners:
        return "too_few_usable"
    best = max(winners, key=lambda row: value[row["sample"]])
    worst = min(usable, key=lambda row: value[row["sample"]])
    margin = value[best["sample"]] - value[worst["sample"]]
    if margin <= min_margin:
        return "below_margin"
    return "identical_texts" if best["completion"].strip() == worst["completion"].strip() else (best, worst, margin)


def rank(groups: dict[str, list[dict]], iteration: str, **rules: Any) -> tuple[list[dict], Counter]:
    """One pair per prompt or one named drop, prompts by id. Raises ValueError when no pair is left."""
    rows, drops = [], Counter(dict.fromkeys(DROPS, 0))
    for prompt_id, group in groups.items():
        found = pair(group, **rules)
        if isinstance(found, str):
            drops[found] += 1
            continue
        best, worst, margin = found
        sides = {side: [{"role": "assistant", "content": row["completion"]}] for side, row in (("chosen", best), ("rejected", worst))}
        ends = {"chosen_finished": best["finished"], "rejected_finished": worst["finished"]}
        audit = {"temperatures": (best["temperature"], worst["temperature"])}
        rows.append({"id": prompt_id, "prompt": best["prompt"], **sides, "margin": margin, **ends, "made_in": iteration, **audit})
    if not rows:
        raise ValueError(f"{len(groups)} prompts, no pair: drops {dict(drops)}; are all rewards equal, or rank.min_margin = {rules['min_margin']} too high?")
    return rows, drops


def audit(rows: list[dict]) -> dict[str, float]:
    """What the pairs are like: margins, lengths in characters, how often the longer or the cooler one is chosen."""
    lengths = [(len(r["chosen"][0]["content"]), len(r["rejected"][0]["content"])) for r in rows]
    return {
        "margin": fmean(r["margin"] for r in rows),
        "chosen_characters": fmean(c for c, _ in lengths),
        "rejected_characters": fmean(r for _, r in lengths),
        "longer_is_chosen": fmean(c > r for c, r in lengths),
        "chosen_temperature": fmean(r["temperatures"][0] for r in rows),
        "rejected_temperature": fmean(r["temperatures"][1] for r in rows),
        "chosen_finished": fmean(r["chosen_finished"] for r in rows),
        "rejected_finished": fmean(r["rejected_finished"] for r in rows),
    }


def main(params: Any, scores: list[Path], iteration: str, *, pairs: Path, metrics: Path) -> None:
    candidates = [row for path in scores for row in pq.read_table(path, columns=INPUT_COLUMNS).to_pylist()]
    groups = by_prompt(candidates, params.generate.n)
    rules = {"length_penalty": params.rank.length_penalty, "min_margin": params.rank.min_margin, "truncated": params.rank.truncated}
    rows, drops = rank(groups, iteration, **rules)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), pairs)
    unscored = sum(row["reward"] is None for row in candidates)
    facts = {
        "rows_in": len(groups),
        "rows_out": len(rows),
        "drops": drops,
        "candidates": len(candidates),
        "unscored": unscored,
        "audit": {k: round(v, 4) for k, v in audit(rows).items()},
    }
    metrics.write_text(json.dumps(facts, indent=2) + "\n")
    print(f"rank {iteration}: {len(candidates)} candidates of {len(groups)} prompts -> {len(rows)} pairs, drops {dict(drops)}")
