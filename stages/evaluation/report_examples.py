"""The report's part on examples: what `examples` laid side by side, as the template wants it, which escapes it."""

from typing import Any

from stages.evaluation.policy_metrics import label

KINDS = {
    "by_hash": "Chosen by a hash of the prompt's id",
    "gains": "The largest gains over π0",
    "losses": "The largest losses against π0",
}


def answer(policy: str, fact: dict[str, Any]) -> dict[str, str]:
    broken = "" if fact["finished"] else ", broken off"
    return {"policy": label(policy), "told": f"{fact['reward']:.2f}{broken}", "text": fact["text"]}


def example(fact: dict[str, Any]) -> dict[str, Any]:
    answers = [answer(policy, each) for policy, each in fact["answers"].items()]
    return {"id": fact["id"], "prompt": fact["prompt"], "answers": answers}


def examples(table: dict[str, Any], selected: str) -> dict[str, Any]:
    """Of the selected policy, or of the last iterate where none was within the caps; `kinds` is empty where there is no
    iterate.
    """
    iterates = [policy for policy in table if policy not in ("pi0", "offline")]
    if not iterates:
        return {"kinds": []}
    facts = table[selected if selected in iterates else iterates[-1]]["examples"]
    kinds = [{"title": title, "rows": list(map(example, facts[name]))} for name, title in KINDS.items()]
    return {
        "kinds": [kind for kind in kinds if kind["rows"]],
        "yardstick": facts["yardstick"],
        "characters": facts["characters"],
    }
