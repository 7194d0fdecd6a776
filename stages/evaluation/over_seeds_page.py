"""What is known of several seeds, in Markdown: a line for each, their mean and error, the claim's test and verdict.

Reads `facts` as stages/tools/seeds.py puts them into metrics/seeds.json.
"""

from typing import Any

from stages.evaluation import html_pages

SEEDS = """\
Differences are of the {measure} on the test prompts, the same for every seed, each with the {interval} interval of its
own seed, by bootstrap over prompts; KL and tokens are the last policy's.
"""
CLAIM = """\
Student's t over seeds, degrees of freedom: {degrees}; Holm over the two comparisons.

Verdict on online over SFT and online over offline: {verdict}.
"""


def cell(numbers: list[float]) -> str:
    """A number, or a difference with its interval."""
    value, *interval = numbers
    if not interval:
        return f"{value:z.2f}"
    low, high = interval
    return f"{value:+z.2f} [{low:z.2f}, {high:z.2f}]"


def table_of_seeds(facts: dict[str, Any], costs: dict[int, list[str]]) -> str:
    """A line for each seed, then mean and standard error; costs: seed -> minutes and stages run."""
    columns = facts["over_seeds"]
    lines = []
    for seed, row in facts["seeds"].items():
        numbers = [cell(row[title]) for title in columns] if row else ["failed", *[""] * (len(columns) - 1)]
        lines.append([str(seed), *numbers, *costs[seed]])
    for name, told in ("mean", "mean"), ("standard_error", "standard error"):
        lines.append([told, *(cell([each[name]]) for each in columns.values()), "", ""])
    return html_pages.markdown(["seed", *columns, "minutes", "stages run"], lines)


def line(title: str, facts: dict[str, Any]) -> list[str]:
    """One comparison of the claim."""
    mean, error = cell([facts["mean"], *facts["interval"]]), f"{facts['standard_error']:.2f}"
    t = "" if facts["t"] is None else f"{facts['t']:.2f}"
    chances = [f"{facts[name]:.2g}" for name in ("p", "p_holm")]
    above = f"{facts['seeds_above_zero']} of {facts['seeds']}"
    return [title, mean, error, t, *chances, above, facts["verdict"]]


def table_of_claim(facts: dict[str, Any]) -> str:
    """The claim's two comparisons over seeds."""
    mean = f"mean [{html_pages.percent(facts['confidence'])}]"
    tests = ["t", "p", "p (Holm)", "seeds above 0 by their own interval", "verdict"]
    lines = [line(title, each) for title, each in facts["claim"].items()]
    return html_pages.markdown(["over seeds", mean, "standard error", *tests], lines)


def page(facts: dict[str, Any], costs: dict[int, list[str]]) -> str:
    """Both tables, and what they are of."""
    degrees = min(each["seeds"] for each in facts["claim"].values()) - 1
    seeds = SEEDS.format(measure=facts["measure"], interval=html_pages.percent(facts["confidence"]))
    claim = CLAIM.format(degrees=degrees, verdict=facts["verdict"])
    return f"{table_of_seeds(facts, costs)}\n{seeds}\n{table_of_claim(facts)}\n{claim}"
