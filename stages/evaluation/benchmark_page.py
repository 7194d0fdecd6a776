"""How the tables of benchmarks and of chat benchmarks are written: Markdown for pull requests, a page for reading."""

from typing import Any

from stages.evaluation import html_pages

DATA_FILES = ["templates/benchmark.html.jinja"]
Table = tuple[list[str], list[list[str]]]
"""A header and its rows."""


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


def markdown(told: str, tables: list[Table]) -> str:
    return "\n".join([f"{told}\n", *(html_pages.markdown(header, rows) for header, rows in tables)])


def page(name: str, told: str, tables: list[Table], picture: str) -> str:
    return html_pages.render("benchmark.html.jinja", name=name, told=told, tables=tables, bars=picture)
