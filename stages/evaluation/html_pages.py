"""What the pages share: their frame and tables (templates/), Markdown tables, and pictures that stand in the page
itself.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

DATA_FILES = ["templates/page.html.jinja", "templates/tables.html.jinja"]
TEMPLATES = Path(__file__).parent / "templates"
COLOUR, INK = "#2457a6", "#1b1f24"
BY_THE_PAGE = {COLOUR: "var(--accent)", INK: "currentColor"}  # in the pictures, so that they read in the dark as well
DRAWN_IN_INK = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "patch.edgecolor")


def render(template: str, folder: Path = TEMPLATES, **values: Any) -> str:
    """A template of the folder with its values; in HTML, text is escaped. A value that the template wants and has not
    is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder, encoding="utf-8"),
        autoescape=".html" in template,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)


def svg(draw: Callable[[Any], Any]) -> str:
    """The figure that `draw(pyplot)` returns, as SVG without a date, random ids or a background, in the page's
    colours.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rc("svg", hashsalt="report", fonttype="none")
    matplotlib.rc("axes.spines", top=False, right=False)
    matplotlib.rcParams.update(dict.fromkeys(DRAWN_IN_INK, INK))
    from matplotlib import pyplot as plt

    text, figure = io.StringIO(), draw(plt)
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    plt.close(figure)
    drawn = text.getvalue()[text.getvalue().index("<svg") :]
    for colour, name in BY_THE_PAGE.items():
        drawn = drawn.replace(colour, name)
    return drawn


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table: the first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(share: float) -> str:
    """As the tables and sentences say it: 0.95 is `95 %`."""
    return f"{100 * share:g} %"
