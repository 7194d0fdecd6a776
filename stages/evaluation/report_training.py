"""The report's part on training: loss, gradient norm and learning rate by optimiser step, each policy's."""

from typing import Any

from stages.evaluation import html_pages
from stages.evaluation.policy_metrics import label

TITLES = {"loss": "loss", "grad_norm": "gradient norm", "learning_rate": "learning rate"}


def logged(table: dict[str, Any], name: str) -> dict[str, list[list[float]]]:
    """Policy -> [step, value] pairs, without policies whose training did not log the quantity."""
    found = {policy: row.get("training", {}).get(name, []) for policy, row in table.items()}
    return {policy: curve for policy, curve in found.items() if curve}


def picture(table: dict[str, Any]) -> str:
    """One panel for each quantity that any training logged; empty where none did."""
    panels = {name: curves for name in TITLES if (curves := logged(table, name))}
    if not panels:
        return ""

    def draw(plt: Any) -> Any:
        figure, axes = plt.subplots(
            1, len(panels), figsize=(3.1 * len(panels), 2.8), layout="constrained", squeeze=False
        )
        for axis, (name, curves) in zip(axes[0], panels.items(), strict=True):
            for policy, curve in curves.items():
                axis.plot(*zip(*curve, strict=True), marker=".", label=label(policy))
            axis.set_title(TITLES[name], fontsize=11)
            axis.set_xlabel("optimiser step")
        axes[0][0].legend(fontsize=8, frameon=False)
        return figure

    return html_pages.svg(draw)
