"""Numbers that show a policy being over-optimised, from its measured answers; `evaluate` reports them, `stop` and
`select` act on them.
"""

from typing import Any

import numpy as np

from stages.words import words


def phrases(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def distinct(texts: list[str], n: int) -> float:
    """distinct-n: different phrases of n words over all such phrases, of all answers together; 0 without any (Li et
    al. 2016, arXiv 1510.03055).
    """
    found = [phrase for text in texts for phrase in phrases(text, n)]
    return len(set(found)) / len(found) if found else 0.0


def repetition(text: str) -> float:
    """The share of an answer's three-word phrases that stand in it before; 0 for one too short to have any."""
    found = phrases(text, 3)
    return 1 - len(set(found)) / len(found) if found else 0.0


def column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """(N,) float64."""
    return np.array([row[name] for row in rows], dtype=np.float64)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's, of shape (N,); 0 where either does not vary."""
    return float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 and x.std() and y.std() else 0.0


def numbers(answers: list[dict[str, Any]]) -> dict[str, float]:
    """Of one policy's answers (proxy_reward, logp_sampler, logp_policy, logp_reference, token_ids, finished,
    completion).

    kl is the estimator k1: the mean of log pi - log pi_0 over the policy's own answers at temperature 1, in nats per
    answer; unbiased but for sampler_kl, the same of the sampler and the policy that it should sample from: what the two
    engines' arithmetic differs by.
    """
    reward = column(answers, "proxy_reward")
    tokens = np.array([len(row["token_ids"]) for row in answers], dtype=np.float64)
    texts = [row["completion"] for row in answers]
    seen = {
        "proxy_reward": reward.mean(),
        "tokens": tokens.mean(),
        "finished": column(answers, "finished").mean(),
        "kl": (column(answers, "logp_policy") - column(answers, "logp_reference")).mean(),
        "sampler_kl": (column(answers, "logp_sampler") - column(answers, "logp_policy")).mean(),
        "length_reward_correlation": correlation(tokens, reward),
        "distinct_2": distinct(texts, 2),
        "repetition": np.mean([repetition(text) for text in texts]),
    }
    return {name: round(float(value), 4) + 0.0 for name, value in seen.items()}  # + 0.0: -0.0 is 0.0


def over(seen: dict[str, float], most: dict[str, float | None], section: str) -> list[str]:
    """The numbers over their bound in that section of params.yaml, in words; a bound of None is none."""
    return [
        f"{name} {seen[name]} is over {section}.max_{name} = {bound}"
        for name, bound in most.items()
        if bound is not None and seen[name] > bound
    ]


def under(seen: dict[str, float], least: dict[str, float | None], section: str) -> list[str]:
    """The numbers under their bound, likewise."""
    return [
        f"{name} {seen[name]} is under {section}.min_{name} = {bound}"
        for name, bound in least.items()
        if bound is not None and seen[name] < bound
    ]


def broken(seen: dict[str, float], rules: Any) -> list[str]:
    """The rules of params.yaml's `stop` that these numbers break, in words."""
    most = {"kl": rules.max_kl, "tokens": rules.max_tokens, "repetition": rules.max_repetition}
    least = {"finished": rules.min_finished, "distinct_2": rules.min_distinct_2}
    return over(seen, most, "stop") + under(seen, least, "stop")
