"""Lay answers of pi_0, offline DPO and one policy to the same test prompts side by side, for people to read.

Reads   measures: a policy's answers with proxy_reward; baseline, offline: the same of pi_0 and of offline DPO
Writes  examples: JSON; prompts by a hash of their ids, and those where the policy gains or loses most over pi_0, each
        with the three answers and their rewards; the texts are cut
Params  examples.by_hash, examples.extremes: prompts of each kind; examples.characters: where a text is cut;
        evaluate.gold: the yardstick is the gold reward where one is known, the proxy elsewhere

Of several answers to a prompt the first is shown, whatever its reward.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages.signals import annotator

COLUMNS = ["id", "sample", "split", "prompt", "completion", "finished", "proxy_reward"]
Answers = dict[str, dict[str, Any]]
"""Prompt id -> its first answer."""


def first_answers(path: Path) -> Answers:
    """To the test prompts."""
    rows = pq.read_table(path, columns=COLUMNS).to_pylist()
    return {row["id"]: row for row in rows if row["split"] == "test" and row["sample"] == 0}


def rewarded(answers: Answers, gold: str) -> dict[str, float]:
    """Prompt id -> the reward of its answer."""
    if gold == "none":
        return {name: row["proxy_reward"] for name, row in answers.items()}
    return {name: annotator.gold(row["prompt"], row["completion"], row["finished"]) for name, row in answers.items()}


def by_hash(names: list[str]) -> list[str]:
    """An order that no reward decides, and that stays when prompts come or go."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def most(gains: dict[str, float], rows: int) -> list[str]:
    """The prompts with the largest gains, none without a gain; of equal ones the first by hash."""
    rising = [name for name in by_hash(list(gains)) if gains[name] > 0]
    return sorted(rising, key=lambda name: -gains[name])[:rows]


def cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters] + " …"


def asked(prompt: list[dict[str, str]]) -> str:
    """A conversation as text; the role stands before a turn where there are several."""
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def shown(name: str, policies: dict[str, Answers], rewards: dict[str, dict[str, float]], characters: int) -> dict:
    """One prompt with every policy's answer."""
    answers = {}
    for policy, rows in policies.items():
        row = rows[name]
        text, reward = cut(row["completion"], characters), round(rewards[policy][name], 4)
        answers[policy] = {"text": text, "reward": reward, "finished": row["finished"]}
    prompt = asked(next(iter(policies.values()))[name]["prompt"])
    return {"id": name, "prompt": cut(prompt, characters), "answers": answers}


def chosen(rewards: dict[str, dict[str, float]], policy: str, baseline: str, params: Any) -> dict[str, list[str]]:
    """Which prompts are shown, by why."""
    gains = {name: reward - rewards[baseline][name] for name, reward in rewards[policy].items()}
    losses = {name: -gain for name, gain in gains.items()}
    return {
        "by_hash": by_hash(list(gains))[: params.examples.by_hash],
        "gains": most(gains, params.examples.extremes),
        "losses": most(losses, params.examples.extremes),
    }


def main(params: Any, measures: Path, baseline: Path, offline: Path, *, examples: Path) -> None:
    policies = {path.stem: first_answers(path) for path in (baseline, offline, measures)}
    if len({frozenset(rows) for rows in policies.values()}) != 1:
        rule = "answered different test prompts, which cannot stand side by side; run respond again for all"
        raise ValueError(f"{', '.join(policies)} {rule}")
    rewards = {policy: rewarded(rows, params.evaluate.gold) for policy, rows in policies.items()}
    characters = params.examples.characters
    kinds = {
        why: [shown(name, policies, rewards, characters) for name in names]
        for why, names in chosen(rewards, measures.stem, baseline.stem, params).items()
    }
    yardstick = "proxy reward" if params.evaluate.gold == "none" else "gold reward"
    found = {"yardstick": yardstick, "characters": characters} | kinds
    examples.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    counts = ", ".join(f"{len(rows)} {why}" for why, rows in kinds.items())
    print(f"examples {measures.stem}: {counts}, of {len(rewards[measures.stem])} test prompts")
