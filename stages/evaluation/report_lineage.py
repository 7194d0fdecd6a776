"""The report's part on lineage: what the run began from and the numbers that made it. Nothing in it holds a time."""

import hashlib
from typing import Any


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def pinned(base: Any) -> str:
    return f"{base.model}, revision {base.revision}"


def joined(values: list[Any]) -> str:
    return ", ".join(map(str, values))


def lineage(params: Any, packages: bytes) -> list[list[str]]:
    """Names and values; `packages`: what stands in requirements.lock."""
    policy, reward_model = (params.bases[name] for name in (params.start_from.policy, params.start_from.reward_model))
    told = {
        "policy begins from": pinned(policy),
        "reward model begins from": pinned(reward_model),
        "seed": params.seed,
        "weights": params.dtype,
        "packages": f"requirements.lock, sha256 {digest(packages)}",
        "mixed sets": joined(list(params.mix)),
        "ranker": params.rank.scorer,
        "prompts an iteration": params.prompts.per_iteration,
        "answers a prompt": f"{params.generate.n} at temperatures {joined(params.generate.temperatures)}",
        "loss": joined(params.dpo.loss),
        "beta": params.dpo.beta,
        "learning rate": params.dpo.learning_rate,
    }
    return [[name, str(value)] for name, value in told.items()]
