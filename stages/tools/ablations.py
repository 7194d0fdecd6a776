"""Run the ablations as DVC experiments and put their results into one table.

    python -m stages.tools.ablations [name ...]     queues those that have not been run, runs the queue, writes
    metrics/ablations.md

Each is one line of `dvc exp run -S`, against what params.yaml says now; only what its edit invalidates runs. What they
change: the paper's Table 4 (the length penalty, another ranker), and beta, the loss, n, the temperatures, the history,
where training starts, fresh labels.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stages.guard import integrity
from stages.guard.params import load

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
HEADER = "| change | gain over π0 [{0}] | over offline [{0}] | KL | tokens | selected | minutes | stages run |\n|---|---:|---:|---:|---:|---|---:|---:|\n"


def sh(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"ablations: `{' '.join(words)}` failed: {' '.join(done.stderr.split())}")
    return done.stdout


def experiments() -> dict[str, str]:
    """Names of the experiments of this commit, with their revisions."""
    lines = [
        line.split()
        for line in sh("git", "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    ]
    base = sh("git", "rev-parse", "HEAD").strip()
    return {ref.rpartition("/")[2]: revision for ref, revision in lines if f"/{base[:2]}/{base[2:]}/" in ref}


def numbers(revision: str) -> dict[str, Any]:
    """Metrics of the last policy and what was selected, at a revision."""
    show = lambda path: json.loads(sh("git", "show", f"{revision}:{path}"))  # noqa: E731
    selected = show("metrics/selected.json")
    last = list(selected["validation"])[-1]
    return show(f"metrics/policy/{last}.json")[last]["test"] | {"selected": selected["policy"]}


def stages_run(before: str, after: str) -> int:
    """How many stages of the root pipeline and the signals have another entry in the lock than before: those that ran."""
    import yaml

    def entries(revision: str) -> dict[str, Any]:
        files = [sh("git", "show", f"{revision}:{name}") for name in integrity.LOCKS]
        return {
            name: entry
            for text in files
            for name, entry in (yaml.load(text, yaml.CBaseLoader) or {}).get("stages", {}).items()
        }

    old, new = entries(before), entries(after)
    return sum(entry != old.get(name) for name, entry in new.items())


def row(title: str, facts: dict[str, Any], minutes: str, ran: str) -> str:
    bound = lambda name: f"{facts[name]:+.2f} [{facts[f'{name}_interval'][0]:.2f}, {facts[f'{name}_interval'][1]:.2f}]"  # noqa: E731
    return f"| {title} | {bound('gain')} | {bound('over_offline')} | {facts['kl']:.2f} | {facts['tokens']:.0f} | {facts['selected']} | {minutes} | {ran} |\n"


def run(name: str, spent: Path) -> None:
    """Queue one ablation, run the queue, and note the minutes it took."""
    settings = [word for setting in ABLATIONS[name] for word in ("-S", setting)]
    sh("dvc", "exp", "run", "--queue", "--name", name, *settings)
    start = time.monotonic()
    subprocess.run(["dvc", "exp", "run", "--run-all", "-j", "1"], check=True)
    known = json.loads(spent.read_text()) if spent.exists() else {}
    spent.parent.mkdir(exist_ok=True)
    spent.write_text(
        json.dumps(known | {f"{sh('git', 'rev-parse', 'HEAD').strip()} {name}": (time.monotonic() - start) / 60})
    )


def main() -> None:
    chosen, spent = sys.argv[1:] or list(ABLATIONS), Path(".scratch/ablations.json")
    unknown = sorted(set(chosen) - set(ABLATIONS))
    if unknown:
        sys.exit(f"ablations: {unknown[0]!r} is none of {', '.join(ABLATIONS)}")
    if sh("git", "status", "--porcelain", "--untracked-files=no"):
        sys.exit(
            "ablations: the workspace has uncommitted changes, which every experiment would carry; commit them or `git checkout .`"
        )
    if "gain" not in numbers("HEAD"):
        sys.exit(
            "ablations: the table is of gains in gold reward, and this run has none; set evaluate.gold, or use `dvc exp run` and `dvc exp show`"
        )
    for name in chosen:
        if name not in experiments():
            run(name, spent)
    done, head = experiments(), sh("git", "rev-parse", "HEAD").strip()
    minutes = json.loads(spent.read_text()) if spent.exists() else {}
    lines = [row("none", numbers("HEAD"), "", "")]
    for name in (name for name in ABLATIONS if name in done):
        took = f"{minutes[f'{head} {name}']:.0f}" if f"{head} {name}" in minutes else ""
        lines.append(
            row(f"`-S {' -S '.join(ABLATIONS[name])}`", numbers(done[name]), took, str(stages_run("HEAD", done[name])))
        )
    sure = f"{100 * load(Path('params.yaml')).evaluate.confidence:g} %"
    TABLE.write_text(HEADER.format(sure) + "".join(lines))
    print(TABLE.read_text())
    failed = [name for name in chosen if name not in done]  # DVC's queue ends with 0 all the same
    if failed:
        sys.exit(
            f"ablations: {', '.join(failed)} failed; see why with `dvc queue logs {failed[0]}`, and run this again"
        )


if __name__ == "__main__":
    main()
