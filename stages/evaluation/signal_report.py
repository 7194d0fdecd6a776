"""Lay the preference signals side by side: Table 1 with the paper's rows, and the pictures that tell which to trust
and how far to push it.

Reads   metrics: one JSON of `signal` per signal, named by it; curves: the same; best: what `best_of_n` found
Writes  markdown_table: a row per signal; html_page: the table, reliability, length bias (the paper's figure 3),
        best-of-n curves
Params  evaluate.confidence, of the intervals
Source  RLHF Workflow, arXiv 2405.07863, table 1 and figure 3
"""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from stages.evaluation import html_pages, reward_bench_sections

COLUMNS = {
    "chat": "chat",
    "chat_hard": "chat hard",
    "safety": "safety",
    "reasoning": "reasoning",
    "prior": "prior sets",
    "other": "own subsets",
}


def share(fact: dict[str, Any] | None) -> str:
    """An accuracy and its interval in %."""
    return (
        ""
        if fact is None
        else f"{100 * fact['accuracy']:.1f} [{100 * fact['interval'][0]:.0f}, {100 * fact['interval'][1]:.0f}]"
    )


def section(fact: dict[str, Any], name: str) -> str:
    """A section's score in %, and how many of its subsets it stands on where these are not all."""
    found = fact.get("reward_bench", {}).get("sections", {}).get(name)
    if found is None:
        return ""
    return f"{100 * found['score']:.1f}" + (
        f" ({found['subsets']} of {found['of']})" if found["subsets"] < found["of"] else ""
    )


def number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def measures(fact: dict[str, Any], best: list[dict], yardstick: str, confidence: float) -> dict[str, str]:
    """A signal's cells by column; empty where it has no such number."""
    sure = f"[{100 * confidence:g} %]"
    heldout, heard = fact["heldout"], fact.get("verdicts", {})
    return {
        f"labels {sure}": share(heldout["labels"]),
        f"r* {sure}": share(heldout.get("gold")),
        "calibration error": number(heldout["labels"].get("calibration_error"), ".3f"),
        "position bias": number(heard.get("position_bias"), ".2f"),
        "reward ~ length": number(fact["length"]["correlation"], "+.2f"),
        f"{yardstick} of the best of {best[-1]['n']}": f"{best[-1]['mean']:.2f}",
    }


def published(shown: list[str]) -> list[list[str]]:
    """The rows of the paper's Table 1 under these columns; none where they have nothing there."""
    known = {
        name: dict(zip((COLUMNS[c] for c in reward_bench_sections.SECTIONS), map(str, numbers), strict=True))
        for name, numbers in reward_bench_sections.TABLE_1.items()
    }
    lines = [[name, *(row.get(column, "") for column in shown)] for name, row in known.items()]
    return [line for line in lines if any(line[1:])]


def rows(facts: dict[str, Any], best: dict[str, Any], confidence: float) -> tuple[list[str], list[list[str]]]:
    """The table, without columns that no signal fills; where there are RewardBench's sections, the paper's rows stand
    beside ours.
    """
    sections_of = lambda fact: {COLUMNS[c]: section(fact, c) for c in COLUMNS}  # noqa: E731
    made = {
        name: sections_of(fact) | measures(fact, best["signals"][name], best["yardstick"], confidence)
        for name, fact in facts.items()
    }
    shown = [column for column in next(iter(made.values())) if any(row[column] for row in made.values())]
    lines = [[name.replace("_", " "), *(row[column] for column in shown)] for name, row in made.items()]
    return ["signal", *shown], lines + published(shown)


def reliability(curves: dict[str, Any]) -> str:
    """Share right by stated confidence, one panel per signal that states one."""
    drawn = {name: curve["reliability"] for name, curve in curves.items() if curve["reliability"]}

    def draw(plt: Any) -> Any:
        figure, axes = plt.subplots(
            1, len(drawn), figsize=(2.4 * len(drawn), 2.6), sharey=True, layout="constrained", squeeze=False
        )
        for axis, (name, bins) in zip(axes[0], drawn.items(), strict=True):
            axis.plot([0.5, 1], [0.5, 1], color="#9aa3ad", linewidth=1)
            size = [10 + 2 * b["pairs"] for b in bins]
            axis.scatter([b["confidence"] for b in bins], [b["right"] for b in bins], size, color="#2457a6", alpha=0.7)
            axis.set(title=name.replace("_", " "), xlim=(0.48, 1.02), ylim=(0, 1.05), xlabel="confidence")
        axes[0][0].set_ylabel("share right")
        return figure

    return html_pages.svg(draw)


def length_bias(curves: dict[str, Any]) -> str:
    """Prompts by their mean length and the correlation of reward and length over their answers: a heat map per signal."""
    lengths = [fact["mean_tokens"] for curve in curves.values() for fact in curve["length"]]
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, 6))) if lengths else np.array([0.0, 1.0])
    grid = edges if len(edges) > 1 else np.array([edges[0] - 1, edges[0] + 1])

    def draw(plt: Any) -> Any:
        figure, axes = plt.subplots(
            1, len(curves), figsize=(2.1 * len(curves), 2.8), sharey=True, layout="constrained", squeeze=False
        )
        for axis, (name, curve) in zip(axes[0], curves.items(), strict=True):
            points = [(fact["mean_tokens"], fact["correlation"]) for fact in curve["length"]]
            counts, _, _ = np.histogram2d([p[0] for p in points], [p[1] for p in points], [grid, np.linspace(-1, 1, 9)])
            axis.imshow(counts.T, origin="lower", aspect="auto", cmap="Blues", extent=(0, len(grid) - 1, -1, 1), vmin=0)
            axis.axhline(0, color="#9aa3ad", linewidth=0.8)
            axis.set_xticks(range(len(grid)), [f"{edge:.0f}" for edge in grid], fontsize=8)
            axis.set(title=name.replace("_", " "), xlabel="mean tokens")
        axes[0][0].set_ylabel("correlation with length")
        return figure

    return html_pages.svg(draw)


def best_of_n(best: dict[str, Any]) -> str:
    """The yardstick against n, with the KL bound that n buys on the upper axis."""

    def draw(plt: Any) -> Any:
        figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
        for name, points in best["signals"].items():
            style = {"color": "#1b1f24", "linestyle": "--"} if name.endswith(" itself") else {}
            axis.plot(
                [p["n"] for p in points],
                [p["mean"] for p in points],
                marker="o",
                markersize=4,
                label=name.replace("_", " "),
                **style,
            )
        points = next(iter(best["signals"].values()))
        axis.set_xscale("log", base=2)
        ticks = [p["n"] for p in points]
        axis.set_xticks(ticks, [f"{p['n']}\n{p['kl']:.2f} nats" for p in points])
        axis.set(xlabel="n, and the KL bound log n - (n - 1)/n", ylabel=f"{best['yardstick']} of the best")
        axis.legend(fontsize=8, frameon=False)
        return figure

    return html_pages.svg(draw)


def by_part(facts: dict[str, Any]) -> str:
    """Accuracy on every part of the held-out pairs, a column per signal."""
    names = list(dict.fromkeys(name for fact in facts.values() for name in fact["heldout"]))
    lines = [[name, *(share(fact["heldout"].get(name)) for fact in facts.values())] for name in names]
    return html_pages.table(["held-out pairs", *(name.replace("_", " ") for name in facts)], lines)


def by_subset(facts: dict[str, Any]) -> str:
    names = sorted({name for fact in facts.values() for name in fact.get("reward_bench", {}).get("subsets", {})})
    lines = []
    for name in names:
        found = [fact["reward_bench"]["subsets"].get(name) for fact in facts.values()]
        lines.append([name, str(max(f["pairs"] for f in found if f)), *map(share, found)])
    return (
        f"<h2>RewardBench by subset</h2><div class='wide'>{html_pages.table(['subset', 'pairs', *facts], lines)}</div>"
        if names
        else ""
    )


def main(
    params: Any, metrics: list[Path], curves: list[Path], best: Path, *, markdown_table: Path, html_page: Path
) -> None:
    facts = {path.stem: json.loads(path.read_text()) for path in metrics}
    drawn = {path.stem: json.loads(path.read_text()) for path in curves}
    found = json.loads(best.read_text())
    header, lines = rows(facts, found, params.evaluate.confidence)
    markdown_table.write_text(html_pages.markdown(header, lines))
    html_page.write_text(f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Preference signals</title><style>{html_pages.STYLE}</style>
<h1>Preference signals</h1><p>How often each signal agrees with the labels of held-out pairs and with r*, how sure it is of itself, and what it favours.</p>
<div class="wide">{html_pages.table(header, lines)}</div>
<h2>By source, margin and difference of length</h2><div class="wide">{by_part(facts)}</div>{by_subset(facts)}
<h2>Is it as right as it is sure?</h2>{reliability(drawn)}
<h2>Does it reward length?</h2><p>Each prompt's correlation of reward and length over its answers, by their mean length.</p>{length_bias(drawn)}
<h2>What does the best of n buy?</h2>
<p>{html.escape(found["yardstick"])} of the answer that each signal picks, {found["prompts"]} prompts.</p>{best_of_n(found)}</html>
""")
    print(f"signal_report: {len(facts)} signals")
