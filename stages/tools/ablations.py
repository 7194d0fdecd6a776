"""Run the ablations as DVC experiments and put their results into one table.

    python -m stages.tools.ablations [name ...]     runs those that have not been run, writes metrics/ablations.md

Each is one line of `dvc exp run -S`, against what params.yaml says now; only what its edit invalidates runs. What they
change: the paper's Table 4 (the length penalty, another ranker), and beta, the loss, n, the temperatures, the history,
where training starts, fresh labels.
"""

import sys
from pathlib import Path
from typing import Any

from stages.evaluation import html_pages
from stages.guard.params import load
from stages.tools import experiments

ABLATIONS: dict[str, list[str]] = {
    "length-penalty": ["rank.length_penalty=0.005"],
    "preference-model": ["rank.scorer=preference_model", "signals.preference_model=[preference_model]"],
    "beta-low": ["dpo.beta=0.03"],
    "beta-high": ["dpo.beta=0.3"],
    "n-4": ["generate.n=4"],
    "temperature-1": ["generate.temperatures=[1.0]"],
    "ipo": ["dpo.loss=[ipo]"],
    "sft-term": ["dpo.loss=[sigmoid,sft]", "dpo.loss_weights=[1.0,0.2]"],
    "history-all": ["history.keep=all"],
    "start-pi0": ["iterations.1.start=pi0"],
    "stepwise": ["iterations.1.reference=pi1"],
    "fresh-labels": ["rank.scorer=refreshed", "signals.refreshed=[refreshed]"],
}
TABLE = Path("metrics/ablations.md")
HEADER = """\
| change | gain over π0 [{0}] | over offline [{0}] | KL | tokens | selected | minutes | stages run |
|---|---:|---:|---:|---:|---|---:|---:|
"""


def numbers(revision: str) -> dict[str, Any]:
    """Metrics of the last policy and what was selected, at a revision."""
    selected = experiments.facts(revision, "metrics/selected.json")
    last = list(selected["validation"])[-1]
    measured = experiments.facts(revision, f"metrics/policy/{last}.json")[last]["test"]
    return measured | {"selected": selected["policy"]}


def bound(facts: dict[str, Any], name: str) -> str:
    """A number with its interval."""
    low, high = facts[f"{name}_interval"]
    return f"{facts[name]:+.2f} [{low:.2f}, {high:.2f}]"


def row(title: str, facts: dict[str, Any], minutes: str, ran: str) -> str:
    gains = [bound(facts, "gain"), bound(facts, "over_offline")]
    seen = [f"{facts['kl']:.2f}", f"{facts['tokens']:.0f}", facts["selected"]]
    return f"| {' | '.join([title, *gains, *seen, minutes, ran])} |\n"


def check(chosen: list[str]) -> None:
    """Raise ValueError where the table cannot be made."""
    unknown = sorted(set(chosen) - set(ABLATIONS))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(ABLATIONS)}")
    experiments.check_clean(TABLE)
    if "gain" not in numbers("HEAD"):
        rule = "the table is of gains in gold reward, and this run has none"
        raise ValueError(f"{rule}; set evaluate.gold, or use `dvc exp run` and `dvc exp show`")


def table(done: dict[str, str]) -> str:
    """The ablations that are done, under the run that they change."""
    lines = [row("none", numbers("HEAD"), "", "")]
    for name in (name for name in ABLATIONS if name in done):
        title, revision = f"`-S {' -S '.join(ABLATIONS[name])}`", done[name]
        ran = str(experiments.stages_run(revision))
        lines.append(row(title, numbers(revision), experiments.minutes_told(revision), ran))
    confidence = load(Path("params.yaml")).evaluate.confidence
    return HEADER.format(html_pages.percent(confidence)) + "".join(lines)


def main() -> None:
    chosen = sys.argv[1:] or list(ABLATIONS)
    with experiments.in_one_line("ablations"):
        check(chosen)
        done = experiments.finished()
        experiments.run({name: ABLATIONS[name] for name in chosen if name not in done})
        done = experiments.finished()
        TABLE.write_text(table(done), encoding="utf-8")
        print(TABLE.read_text(encoding="utf-8"))
        failed = [name for name in chosen if name not in done]
        if failed:
            raise ValueError(f"{', '.join(failed)} failed; mend what DVC's message above names and run this again")


if __name__ == "__main__":
    main()
