"""The report's part on policies: the result table, the verdict, what shows over-optimisation, and their picture.

`table` is everywhere policy -> {test: numbers of `evaluate`, ...}, in the order in which the policies were made.
"""

from typing import Any

from stages.evaluation import html_pages
from stages.evaluation.policy_metrics import label

COLUMNS = [
    "policy",
    "gold reward",
    "gain over π0",
    "gain over offline",
    "wins over π0",
    "judge prefers it to π0",
    "judge: over offline",
    "proxy",
    "tokens",
    "finished",
    "KL to π0",
]
MONITORS = {
    "gold_reward": "gold reward",
    "judge_win_rate": "judge prefers it to π0",
    "proxy_reward": "proxy reward",
    "kl": "KL to π0 (k1), nats",
    "sampler_kl": "KL of the sampler to the policy",
    "tokens": "tokens",
    "length_reward_correlation": "length and reward",
    "finished": "finished",
    "distinct_2": "distinct-2",
    "repetition": "repetition",
}
PANELS = {
    "gold_reward": "gold reward",
    "proxy_reward": "proxy reward",
    "win_rate": "wins over π0, by gold",
    "judge_win_rate": "wins over π0, by the judge",
    "proxy_win_rate": "wins over π0, by the proxy",
    "tokens": "tokens per answer",
    "kl": "KL to π0, nats",
}
COLUMNS_OF_PANELS = 3


def bounded(numbers: dict[str, Any], name: str, form: str) -> str:
    """A quantity and its interval; empty where the profile has no gold reward, or no judge."""
    if name not in numbers:
        return ""
    low, high = numbers[f"{name}_interval"]
    return f"{numbers[name]:{form}} [{low:.2f}, {high:.2f}]"


def cells(policy: str, n: dict[str, Any]) -> list[str]:
    """One row of the result table, every column of COLUMNS; empty where a policy would be compared with itself."""
    beside_pi0, beside_offline = policy != "pi0", policy not in ("pi0", "offline")
    wins = f"{n['win_rate']:.0%}" if "win_rate" in n else ""
    return [
        label(policy),
        bounded(n, "gold_reward", ".2f"),
        bounded(n, "gain", "+.2f") if beside_pi0 else "",
        bounded(n, "over_offline", "+.2f") if beside_offline else "",
        wins if beside_pi0 else "",
        bounded(n, "judge_win_rate", ".2f") if beside_pi0 else "",
        bounded(n, "judge_over_offline", "+.2f") if beside_offline else "",
        f"{n['proxy_reward']:.2f}",
        f"{n['tokens']:.0f}",
        f"{n['finished']:.0%}",
        f"{n['kl']:.2f}".replace("-0.00", "0.00"),
    ]


def results(table: dict[str, Any], confidence: float) -> tuple[list[str], list[list[str]]]:
    """The result table without the columns that this profile has no numbers for; the first interval says how sure it
    is.
    """
    lines = [cells(policy, numbers["test"]) for policy, numbers in table.items()]
    kept = [k for k in range(len(COLUMNS)) if any(line[k] for line in lines)]
    header = [COLUMNS[k] for k in kept]
    if "[" in lines[-1][kept[1]]:
        header[1] += f" [{html_pages.percent(confidence)}]"
    return header, [[line[k] for k in kept] for line in lines]


def flat(policy: str, test: dict[str, Any]) -> dict[str, Any]:
    """One policy as plain columns: an interval becomes two columns, low and high."""
    row: dict[str, Any] = {"policy": policy}
    for name, value in test.items():
        if isinstance(value, list):
            row[name.replace("interval", "low")], row[name.replace("interval", "high")] = value
        else:
            row[name] = value
    return row


def verdict(table: dict[str, Any], selected: str, confidence: float) -> str:
    """What the intervals allow to be said, in words: of the gold reward, or else of the judge's preference, where a
    half is neither way.
    """
    n, told, sure = (
        table[selected]["test"],
        f"Selected on validation: {label(selected)}",
        html_pages.percent(confidence),
    )
    if "gain" in n:
        over_pi0, over_offline = n["gain_interval"], n["over_offline_interval"]
        by = f"paired {sure} intervals"
    elif "judge_win_rate" in n:
        over_pi0 = [bound - 0.5 for bound in n["judge_win_rate_interval"]]
        over_offline = n["judge_over_offline_interval"]
        by = f"{sure} intervals of the judge's preference"
    else:
        return f"{told}. There is no gold reward and no judge in this profile."
    return f"{told}, {compared(over_pi0)} π0 and {compared(over_offline)} offline DPO, by {by}."


def compared(interval: list[float]) -> str:
    """What the interval of a difference says."""
    low, high = interval
    if low > 0:
        return "better than"
    return "worse than" if high < 0 else "not shown to be better or worse than"


def monitored(table: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """What shows over-optimisation, by policy, on test prompts."""
    seen = [name for name in MONITORS if name in table["pi0"]["test"]]
    lines = [[label(policy), *(f"{row['test'][name] + 0.0:.2f}" for name in seen)] for policy, row in table.items()]
    return ["policy", *(MONITORS[name] for name in seen)], lines


def stopped(table: dict[str, Any]) -> str:
    """Whether the rules let the run go on; empty where they did."""
    ended = [policy for policy, row in table.items() if row.get("stop", {}).get("stop")]
    return f"Stopped before {label(ended[0])}: {table[ended[0]]['stop']['reason']}." if ended else ""


def errors(name: str, tests: list[dict[str, Any]]) -> list[list[float]]:
    """How far an interval reaches below and above each policy's number; 0 for what is drawn without."""
    ends = [test.get(f"{name}_interval", [test[name]] * 2) for test in tests]
    below = [test[name] - low for test, (low, _) in zip(tests, ends, strict=True)]
    above = [high - test[name] for test, (_, high) in zip(tests, ends, strict=True)]
    return [below, above]


def panel(axis: Any, name: str, table: dict[str, Any]) -> None:
    """One quantity by policy, with its interval where it has one; the line follows the iterations."""
    tests = [row["test"] for row in table.values()]
    values = [test[name] for test in tests]
    iterates = [i for i, policy in enumerate(table) if policy != "offline"]
    axis.errorbar(range(len(values)), values, yerr=errors(name, tests), fmt="o", capsize=3, color=html_pages.COLOUR)
    axis.plot(iterates, [values[i] for i in iterates], color=html_pages.COLOUR)
    axis.set_xticks(range(len(values)), [label(policy).split(" ")[0] for policy in table])
    axis.set_title(PANELS[name], fontsize=11)


def picture(table: dict[str, Any]) -> str:
    """Rewards, win rates, length and KL by policy, whatever of them the profile has."""
    shown = [name for name in PANELS if name in table["pi0"]["test"]]
    lines = -(-len(shown) // COLUMNS_OF_PANELS)

    def draw(plt: Any) -> Any:
        size = (3.1 * COLUMNS_OF_PANELS, 2.8 * lines)
        figure, axes = plt.subplots(lines, COLUMNS_OF_PANELS, figsize=size, layout="constrained", squeeze=False)
        for axis in axes.flat[len(shown) :]:
            axis.set_axis_off()
        for axis, name in zip(axes.flat, shown, strict=False):
            panel(axis, name, table)
        return figure

    return html_pages.svg(draw)
