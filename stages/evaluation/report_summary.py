"""The few numbers by which two experiments are compared: what `dvc metrics show`, `diff` and `exp show` print.

All are of the policy that was selected, so that they keep their names whatever was selected and however many
iterations there are. DVC prints one column a number: these fit a terminal of 120 columns, and a test holds them to it.
"""

from typing import Any

OF_GOLD = {"gold_gain": "gain", "win_rate_over_offline": "win_rate_over_offline"}
OF_THE_JUDGE = {"judge_win_rate": "judge_win_rate", "judge_over_offline": "judge_over_offline"}
OF_THE_PROXY = {"proxy_win_rate": "proxy_win_rate"}
ALWAYS = {"kl": "kl", "finished": "finished"}


def headline(test: dict[str, Any]) -> dict[str, str]:
    """The best yardstick that the profile has, as the summary's names -> the names in `evaluate`'s metrics."""
    if "gain" in test:
        return OF_GOLD
    return OF_THE_JUDGE if "judge_win_rate" in test else OF_THE_PROXY


def numbers(test: dict[str, Any], selected: str, ranker: dict[str, Any]) -> dict[str, str | float]:
    """`test`: what `evaluate` found of the selected policy on the test prompts; ranker: the metrics of `signal` of the
    scorer that ranked.
    """
    shown = {name: test[source] for name, source in (headline(test) | ALWAYS).items()}
    length = {"tokens": round(test["tokens"], 1)}
    return {"policy": selected} | shown | length | {"ranker_accuracy": ranker["heldout"]["labels"]["accuracy"]}
