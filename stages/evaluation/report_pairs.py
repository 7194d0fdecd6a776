"""The report's part on pairs: where each iteration's come from, how long their sides are, and on how many of them each
policy was trained.
"""

from typing import Any

from stages.evaluation import html_pages
from stages.evaluation.policy_metrics import label

HEADER = [
    "pairs for",
    "median margin",
    "characters of chosen and rejected",
    "longer is chosen",
    "chosen at temperature",
    "rejected at temperature",
]
BARS = 10


def budget(table: dict[str, Any]) -> str:
    """On how many pairs, in how many steps, each policy was trained: what makes online and offline comparable."""
    trained = {label(policy): row["dpo"] for policy, row in table.items() if "dpo" in row}
    return "; ".join(f"{name}: {fact['rows_out']:,} pairs in {fact['steps']:,} steps" for name, fact in trained.items())


def audits(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The audits of `rank`, by the policy that the pairs made; none of an iteration without pairs."""
    found = {policy: row.get("rank", {}).get("audit") for policy, row in table.items()}
    return {policy: audit for policy, audit in found.items() if audit}


def temperatures(audit: dict[str, Any], side: str) -> str:
    """The shares of that side's answers that were sampled at each temperature."""
    prefix = f"{side}_at_"
    shares = {key.removeprefix(prefix): share for key, share in audit.items() if key.startswith(prefix)}
    return ", ".join(f"{share:.0%} at {temperature}" for temperature, share in shares.items())


def cells(policy: str, audit: dict[str, Any]) -> list[str]:
    """One iteration's pairs, every column of HEADER."""
    return [
        label(policy),
        f"{audit['margin_median']:.2f}",
        f"{audit['chosen_characters']:.0f} and {audit['rejected_characters']:.0f}",
        f"{audit['longer_is_chosen']:.0%}",
        temperatures(audit, "chosen"),
        temperatures(audit, "rejected"),
    ]


def picture(found: dict[str, dict[str, Any]]) -> str:
    """Histograms of the margins, one for each audit; nothing without any."""
    if not found:
        return ""

    def draw(plt: Any) -> Any:
        figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 2.6), layout="constrained", squeeze=False)
        for axis, (policy, audit) in zip(axes[0], found.items(), strict=True):
            width = (audit["margin_high"] - audit["margin_low"]) / BARS or 1.0
            middles = [audit["margin_low"] + (k + 0.5) * width for k in range(BARS)]
            axis.bar(middles, audit["margin_histogram"], width=0.9 * width, color=html_pages.COLOUR)
            axis.set_title(f"margins of the pairs for {label(policy)}", fontsize=11)
        return figure

    return html_pages.svg(draw)
