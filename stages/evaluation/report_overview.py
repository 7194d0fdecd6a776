"""The picture for the README: the stages along the data's way (templates/overview.svg.jinja), and each policy's
result.
"""

import textwrap
from typing import Any

from stages.evaluation import html_pages
from stages.evaluation.policy_metrics import label

DATA_FILES = ["templates/overview.svg.jinja"]
LEFT, RIGHT = 170, 770  # of the axis, in units of the view box
QUANTITIES = {
    "gold_reward": "gold reward on test prompts",
    "judge_win_rate": "how often the judge prefers it to π0",
    "proxy_reward": "proxy reward on test prompts",
}


def quantity(test: dict[str, Any]) -> str:
    """What the profile can show of a policy: the first of QUANTITIES that it has."""
    return next(name for name in QUANTITIES if name in test)


def points(tests: dict[str, dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Each policy's number, with its interval where there is one, and where they stand on the axis."""
    ends = {policy: test.get(f"{name}_interval", [test[name]] * 2) for policy, test in tests.items()}
    lowest, highest = min(low for low, _ in ends.values()), max(high for _, high in ends.values())
    width = highest - lowest or 1.0
    place = lambda value: round(LEFT + (RIGHT - LEFT) * (value - lowest) / width, 1)  # noqa: E731
    return [
        {
            "label": label(policy),
            "middle": place(test[name]),
            "low": place(ends[policy][0]),
            "high": place(ends[policy][1]),
            "told": told(test, name),
        }
        for policy, test in tests.items()
    ]


def told(test: dict[str, Any], name: str) -> str:
    if f"{name}_interval" not in test:
        return f"{test[name]:.2f}"
    low, high = test[f"{name}_interval"]
    return f"{test[name]:.2f} [{low:.2f}, {high:.2f}]"


def picture(table: dict[str, Any], verdict: str, confidence: float) -> str:
    """SVG, the same bytes for the same numbers."""
    tests = {policy: row["test"] for policy, row in table.items()}
    name = quantity(tests["pi0"])
    sure = f", {html_pages.percent(confidence)} intervals" if f"{name}_interval" in tests["pi0"] else ""
    return html_pages.render(
        "overview.svg.jinja",
        quantity=QUANTITIES[name] + sure,
        points=points(tests, name),
        verdict=verdict,
        verdict_lines=textwrap.wrap(verdict, 110),
    )
