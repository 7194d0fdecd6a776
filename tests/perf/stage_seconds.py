"""What the seconds of a run go to, stage by stage: imports, model load, work.

Run     STAGE_SECONDS=$PWD/seconds.jsonl PYTHONPATH=tests/perf/stage_seconds dvc --wait-for-lock repro
        python tests/perf/stage_seconds.py seconds.jsonl
Prints  a Markdown table, in seconds, all runs of a stage together
"""

import sys

import pandas as pd


def main() -> None:
    lines = pd.read_json(sys.argv[1], lines=True)
    table = lines.groupby("stage", sort=False).agg(
        runs=("total", "size"), imports=("imports", "sum"), load=("load", "sum"), total=("total", "sum")
    )
    table["work"] = table.total - table.imports - table.load
    table.loc["all"] = table.sum()
    print("| stage | runs | imports | model load | work | all |\n|---|---:|---:|---:|---:|---:|")
    for stage, row in table.iterrows():
        print(f"| `{stage}` | {row.runs:.0f} | {row.imports:.1f} | {row.load:.1f} | {row.work:.1f} | {row.total:.1f} |")


if __name__ == "__main__":
    main()
