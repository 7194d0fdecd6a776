"""How the tables of benchmarks and of chat benchmarks are written: Markdown for pull requests, a page for reading."""

from pathlib import Path
from typing import Any

from stages.evaluation import html_pages, policy_metrics

DATA_FILES = ["templates/benchmark.html.jinja"]
Table = tuple[list[str], list[list[str]]]
"""A header and its rows."""


def cell(facts: dict[str, Any], name: str) -> str:
    """A number and its interval."""
    low, high = facts["interval"]
    return f"{facts[name]:.3f} [{low:.3f}, {high:.3f}]"


def bars(scores: dict[str, dict[str, Any]], title: str) -> str:
    """A bar for each policy, with the interval: policy's name -> value, interval."""
    values = [facts["value"] for facts in scores.values()]

    def draw(plt: Any) -> Any:
        figure, axis = plt.subplots(figsize=(4.8, 0.5 + 0.4 * len(values)), layout="constrained")
        axis.barh(list(scores), values, color=html_pages.COLOUR, alpha=0.55, height=0.6)
        for k, facts in enumerate(scores.values()):  # no error bars: a bootstrap's interval may leave its value out
            axis.plot(facts["interval"], [k, k], color=html_pages.INK, linewidth=1, marker="|")
        axis.invert_yaxis()
        axis.set(xlabel=title)
        return figure

    return html_pages.svg(draw)


def write(name: str, told: str, tables: list[Table], facts: dict[str, Any], table: Path, page: Path) -> None:
    """Both; `facts` are the stage's metrics, of whose headline the bars are."""
    headline = {policy_metrics.label(policy): each[facts["headline"]] for policy, each in facts["policies"].items()}
    text = "\n".join([f"{told}\n", *(html_pages.markdown(header, rows) for header, rows in tables)])
    table.write_text(text, encoding="utf-8")
    picture = bars(headline, facts["headline"])
    html = html_pages.render("benchmark.html.jinja", name=name, told=told, tables=tables, bars=picture)
    page.write_text(html, encoding="utf-8")
