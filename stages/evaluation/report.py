"""Draw the results: a table for the README, few numbers for `dvc metrics`, rows for `dvc plots`, one HTML page that
needs no network, and the picture of the pipeline.

Reads   policies: a folder of `evaluate`'s metrics, one file per policy, with the accounts of what made it; selected:
        metrics of `select`; ranker: metrics of `signal`, named by the scorer that ranked; sets: the audit of the
        preferences; prompts: row account; packages: requirements.lock, for its hash
Writes  markdown_table: the result table; rows: one CSV line per policy; curves: one CSV line per step that a policy's
        training logged; html_page: HTML with the pictures inside it; summary: few numbers of the selected policy;
        overview: SVG of the pipeline and its result
Params  iterations; evaluate.confidence, of the intervals; for the lineage bases, start_from, seed, dtype, mix, and the
        numbers of sampling, ranking and training that decide most
"""

import csv
import json
from pathlib import Path
from typing import Any

from stages.evaluation import (
    html_pages,
    policy_metrics,
    report_claim,
    report_data,
    report_examples,
    report_lineage,
    report_optimisation,
    report_overview,
    report_pairs,
    report_policies,
    report_summary,
    report_training,
)

DATA_FILES = ["templates/report.html.jinja", "templates/examples.html.jinja"]


def curve_rows(table: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The training curves in long form, as `dvc plots` wants them; none of a policy whose training logged nothing."""
    return [
        {"policy": policy, "step": step, "loss": loss}
        for policy, row in table.items()
        for made_by in ("sft", "dpo")
        for step, loss in row.get(made_by, {}).get("curve", [])
    ]


def write_csv(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def titled(table: tuple[list[str], list[list[str]]], **more: str) -> dict[str, Any]:
    """A table as the templates want it."""
    header, rows = table
    return {"header": header, "rows": rows} | more


def ranker_table(ranker: dict[str, Any], confidence: float) -> tuple[list[str], list[list[str]]]:
    """What the scorer that ranked gets right of the held-out pairs."""
    rows = []
    for name, fact in ranker["heldout"].items():
        low, high = fact["interval"]
        rows.append([name, f"{fact['accuracy']:.1%}", f"{low:.1%} to {high:.1%}", str(fact["pairs"])])
    return ["agreement with", "accuracy", f"{html_pages.percent(confidence)} interval", "pairs"], rows


def page(
    table: dict[str, Any],
    best: str,
    confidence: float,
    ranker: tuple[str, dict[str, Any]],
    sets: dict[str, Any],
    prompts: dict[str, Any],
    lineage: list[list[str]],
) -> str:
    """The HTML page. `best` is the policy that was selected, `ranker` the scorer's name and its metrics of `signal`."""
    audits = report_pairs.audits(table)
    pair_rows = [report_pairs.cells(policy, audit) for policy, audit in audits.items()]
    results = report_policies.results(table, confidence)
    monitors = report_policies.monitored(table)
    name, facts = ranker
    return html_pages.render(
        "report.html.jinja",
        verdict=report_policies.verdict(table, best, confidence),
        test=table["pi0"]["test"],
        results=titled(results, picture=report_policies.picture(table)),
        claim=report_claim.claim(best, table[best]["test"], confidence),
        optimisation=report_optimisation.optimisation(table, confidence),
        monitors=titled(monitors, stopped=report_policies.stopped(table)),
        examples=report_examples.examples(table, best),
        pairs=titled(
            (report_pairs.HEADER, pair_rows),
            picture=report_pairs.picture(audits),
            budget=report_pairs.budget(table),
        ),
        curves=report_training.picture(table),
        ranker=titled(ranker_table(facts, confidence), name=name.replace("_", " ")),
        sets=titled(report_data.table(sets), picture=report_data.picture(sets)),
        prompts=report_data.prompts(prompts),
        lineage=lineage,
    )


def main(
    params: Any,
    policies: Path,
    selected: Path,
    ranker: Path,
    sets: Path,
    prompts: Path,
    packages: Path,
    *,
    markdown_table: Path,
    rows: Path,
    curves: Path,
    html_page: Path,
    summary: Path,
    overview: Path,
) -> None:
    read = lambda path: json.loads(path.read_text(encoding="utf-8"))  # noqa: E731
    write = lambda path, text: path.write_text(text, encoding="utf-8")  # noqa: E731
    table, confidence = policy_metrics.table(params.iterations, policies), params.evaluate.confidence
    best, facts = read(selected)["policy"], read(ranker)
    verdict = report_policies.verdict(table, best, confidence)
    lineage = report_lineage.lineage(params, packages.read_bytes())

    flat = [report_policies.flat(policy, row["test"]) for policy, row in table.items()]
    write_csv(rows, list(flat[0]), flat)
    write_csv(curves, ["policy", "step", "loss"], curve_rows(table))
    write(markdown_table, html_pages.markdown(*report_policies.results(table, confidence)))
    numbers = report_summary.numbers(table[best]["test"], best, facts)
    write(summary, json.dumps(numbers, indent=2) + "\n")
    write(html_page, page(table, best, confidence, (ranker.stem, facts), read(sets), read(prompts), lineage))
    write(overview, report_overview.picture(table, verdict, confidence))
    print(f"report: {len(table)} policies; {verdict}")
