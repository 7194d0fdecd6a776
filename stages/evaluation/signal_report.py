"""Lay the preference signals side by side: Table 1 with the paper's rows, and the pictures that tell which to trust
and how far to push it.

Reads   metrics: one JSON of `signal` per signal, named by it; curves: the same; best: what `best_of_n` found
Writes  markdown_table: a row per signal; html_page: the table, reliability, length bias (the paper's figure 3),
        best-of-n curves
Params  evaluate.confidence, of the intervals
Source  RLHF Workflow, arXiv 2405.07863, table 1 and figure 3
"""

import json
from pathlib import Path
from typing import Any

from stages.evaluation import html_pages, reward_bench_sections, signal_pictures

DATA_FILES = ["templates/signals.html.jinja"]
COLUMNS = {
    "chat": "chat",
    "chat_hard": "chat hard",
    "safety": "safety",
    "reasoning": "reasoning",
    "prior": "prior sets",
    "other": "own subsets",
}

Table = tuple[list[str], list[list[str]]]
"""A header and its rows."""


def share(fact: dict[str, Any] | None) -> str:
    """An accuracy and its interval in %; empty where there is none."""
    if fact is None:
        return ""
    low, high = fact["interval"]
    return f"{100 * fact['accuracy']:.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def section(fact: dict[str, Any], name: str) -> str:
    """A section's score in %, and how many of its subsets it stands on where these are not all."""
    found = fact.get("reward_bench", {}).get("sections", {}).get(name)
    if found is None:
        return ""
    score, part = f"{100 * found['score']:.1f}", f" ({found['subsets']} of {found['of']})"
    return score + part if found["subsets"] < found["of"] else score


def number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def measures(fact: dict[str, Any], best: list[dict], yardstick: str, confidence: float) -> dict[str, str]:
    """A signal's cells by column; empty where it has no such number."""
    sure, most = html_pages.percent(confidence), best[-1]
    heldout, heard = fact["heldout"], fact.get("verdicts", {})
    among = fact.get("reward_bench_2", {}).get("score")
    return {
        "RewardBench 2": number(None if among is None else 100 * among, ".1f"),
        f"labels [{sure}]": share(heldout["labels"]),
        f"r* [{sure}]": share(heldout.get("gold")),
        "calibration error": number(heldout["labels"].get("calibration_error"), ".3f"),
        "position bias": number(heard.get("position_bias"), ".2f"),
        "reward ~ length": number(fact["length"]["correlation"], "+.2f"),
        f"{yardstick} of the best of {most['n']}": f"{most['mean']:.2f}",
    }


def published(shown: list[str]) -> list[list[str]]:
    """The rows of the paper's Table 1 under these columns; none where they have nothing there."""
    columns = [COLUMNS[name] for name in reward_bench_sections.SECTIONS]
    lines = []
    for name, scores in reward_bench_sections.TABLE_1.items():
        row = dict(zip(columns, map(str, scores), strict=True))
        lines.append([name, *(row.get(column, "") for column in shown)])
    return [line for line in lines if any(line[1:])]


def signals_table(facts: dict[str, Any], best: dict[str, Any], confidence: float) -> Table:
    """The signals, without columns that none fills; where there are RewardBench's sections, the paper's rows stand
    beside ours.
    """
    made = {}
    for name, fact in facts.items():
        sections = {title: section(fact, key) for key, title in COLUMNS.items()}
        made[name] = sections | measures(fact, best["signals"][name], best["yardstick"], confidence)
    columns = next(iter(made.values()))
    shown = [column for column in columns if any(row[column] for row in made.values())]
    lines = [[name.replace("_", " "), *(row[column] for column in shown)] for name, row in made.items()]
    return ["signal", *shown], lines + published(shown)


def parts_table(facts: dict[str, Any]) -> Table:
    """Accuracy on every part of the held-out pairs, a column per signal."""
    parts = dict.fromkeys(part for fact in facts.values() for part in fact["heldout"])
    lines = [[part, *(share(fact["heldout"].get(part)) for fact in facts.values())] for part in parts]
    return ["held-out pairs", *(name.replace("_", " ") for name in facts)], lines


def subsets_table(facts: dict[str, Any]) -> Table:
    """Accuracy on every subset of RewardBench, a column per signal; no row where its files are not at hand."""
    subsets = [fact.get("reward_bench", {}).get("subsets", {}) for fact in facts.values()]
    lines = []
    for name in sorted({name for found in subsets for name in found}):
        row = [found.get(name) for found in subsets]
        pairs = max(fact["pairs"] for fact in row if fact)
        lines.append([name, str(pairs), *map(share, row)])
    return ["subset", "pairs", *facts], lines


def titled(table: Table) -> dict[str, Any]:
    header, rows = table
    return {"header": header, "rows": rows}


def main(
    params: Any, metrics: list[Path], curves: list[Path], best: Path, *, markdown_table: Path, html_page: Path
) -> None:
    read = lambda path: json.loads(path.read_text(encoding="utf-8"))  # noqa: E731
    facts = {path.stem: read(path) for path in metrics}
    drawn = {path.stem: read(path) for path in curves}
    found = read(best)
    header, rows = signals_table(facts, found, params.evaluate.confidence)
    markdown_table.write_text(html_pages.markdown(header, rows), encoding="utf-8")
    page = html_pages.render(
        "signals.html.jinja",
        signals=titled((header, rows)),
        parts=titled(parts_table(facts)),
        subsets=titled(subsets_table(facts)),
        reliability=signal_pictures.reliability(drawn),
        length_bias=signal_pictures.length_bias(drawn),
        best_of_n=signal_pictures.best_of_n(found),
        yardstick=found["yardstick"],
        prompts=found["prompts"],
    )
    html_page.write_text(page, encoding="utf-8")
    print(f"signal_report: {len(facts)} signals")
