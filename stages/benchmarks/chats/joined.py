"""What a judge's question and the reading of its verdict must agree on: whose answer it is, and which stood first."""

import hashlib


def policy_first(name: str) -> bool:
    """Whether the policy's answer to this question is shown first: a coin that its name tosses."""
    return hashlib.sha256(name.encode()).digest()[0] % 2 == 0


def joined(asked: list[dict], answers: list[dict]) -> list[dict]:
    """Questions with their answers. Raises ValueError unless each has them."""
    found = {row["id"]: row for row in answers}
    missing = [row["id"] for row in asked if row["id"] not in found]
    if missing or len(answers) != len(asked):
        told = f"{len(asked)} questions were asked, {len(answers)} answered, of {(missing or ['none'])[0]} nothing"
        raise ValueError(f"{told}; run the policy's turns again")
    return [row | found[row["id"]] for row in asked]
