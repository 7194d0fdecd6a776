"""The pictures of the page on signals. `curves` is signal -> what `signal` wrote for them."""

from typing import Any

import numpy as np

from stages.evaluation import html_pages

GREY, BLACK = "#9aa3ad", "#1b1f24"


def reliability(curves: dict[str, Any]) -> str:
    """Share right by stated confidence, one panel per signal that states one."""
    drawn = {name: curve["reliability"] for name, curve in curves.items() if curve["reliability"]}

    def draw(plt: Any) -> Any:
        size = (2.4 * len(drawn), 2.6)
        figure, axes = plt.subplots(1, len(drawn), figsize=size, sharey=True, layout="constrained", squeeze=False)
        for axis, (name, bins) in zip(axes[0], drawn.items(), strict=True):
            sure, right = [b["confidence"] for b in bins], [b["right"] for b in bins]
            areas = [10 + 2 * b["pairs"] for b in bins]
            axis.plot([0.5, 1], [0.5, 1], color=GREY, linewidth=1)
            axis.scatter(sure, right, areas, color=html_pages.COLOUR, alpha=0.7)
            axis.set(title=name.replace("_", " "), xlim=(0.48, 1.02), ylim=(0, 1.05), xlabel="confidence")
        axes[0][0].set_ylabel("share right")
        return figure

    return html_pages.svg(draw)


def length_edges(curves: dict[str, Any]) -> np.ndarray:
    """Bounds of five ranges of mean length with about as many prompts each, fewer where lengths are few."""
    lengths = [fact["mean_tokens"] for curve in curves.values() for fact in curve["length"]]
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, 6))) if lengths else np.array([0.0, 1.0])
    return edges if len(edges) > 1 else np.array([edges[0] - 1, edges[0] + 1])


def length_bias(curves: dict[str, Any]) -> str:
    """A heat map per signal: prompts by their mean length and their correlation of reward and length."""
    edges = length_edges(curves)

    def draw(plt: Any) -> Any:
        size = (2.1 * len(curves), 2.8)
        figure, axes = plt.subplots(1, len(curves), figsize=size, sharey=True, layout="constrained", squeeze=False)
        for axis, (name, curve) in zip(axes[0], curves.items(), strict=True):
            lengths = [fact["mean_tokens"] for fact in curve["length"]]
            correlations = [fact["correlation"] for fact in curve["length"]]
            counts, _, _ = np.histogram2d(lengths, correlations, [edges, np.linspace(-1, 1, 9)])
            extent = (0, len(edges) - 1, -1, 1)
            axis.imshow(counts.T, origin="lower", aspect="auto", cmap="Blues", extent=extent, vmin=0)
            axis.axhline(0, color=GREY, linewidth=0.8)
            axis.set_xticks(range(len(edges)), [f"{edge:.0f}" for edge in edges], fontsize=8)
            axis.set(title=name.replace("_", " "), xlabel="mean tokens")
        axes[0][0].set_ylabel("correlation with length")
        return figure

    return html_pages.svg(draw)


def best_of_n(best: dict[str, Any]) -> str:
    """The yardstick against n, with the KL bound that n buys under each n."""

    def draw(plt: Any) -> Any:
        figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
        for name, points in best["signals"].items():
            style = {"color": BLACK, "linestyle": "--"} if name.endswith(" itself") else {}
            n, means = [p["n"] for p in points], [p["mean"] for p in points]
            axis.plot(n, means, marker="o", markersize=4, label=name.replace("_", " "), **style)
        points = next(iter(best["signals"].values()))
        axis.set_xscale("log", base=2)
        axis.set_xticks([p["n"] for p in points], [f"{p['n']}\n{p['kl']:.2f} nats" for p in points])
        axis.set(xlabel="n, and the KL bound log n - (n - 1)/n", ylabel=f"{best['yardstick']} of the best")
        axis.legend(fontsize=8, frameon=False)
        return figure

    return html_pages.svg(draw)
