"""What the HTML pages share: a style, tables, and pictures that stand in the page itself."""

import html
import io
from collections.abc import Callable
from typing import Any

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .7rem;border-bottom:1px solid #d5d9de;text-align:right}
td:first-child,th:first-child{text-align:left}.wide{overflow-x:auto;font-size:.85rem}svg{max-width:100%;height:auto}code{background:#f2f4f6;padding:0 .2rem}
"""


def svg(draw: Callable[[Any], Any]) -> str:
    """The figure that `draw(pyplot)` returns, as SVG without a date or random ids."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {"svg.hashsalt": "report", "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}
    )
    from matplotlib import pyplot as plt

    text = io.StringIO()
    draw(plt).savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def table(header: list[str], rows: list[list[str]]) -> str:
    """An HTML table; cells are plain text."""
    lines = [
        "".join(f"<th>{html.escape(cell)}</th>" for cell in header),
        *("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows),
    ]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """The same as Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
