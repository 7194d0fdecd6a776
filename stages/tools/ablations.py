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
SPENT = Path(".scratch/ablations.json")
"""Minutes by `<commit> <ablation>`: DVC does not keep them."""
HEADER = """\
| change | gain over π0 [{0}] | over offline [{0}] | KL | tokens | selected | minutes | stages run |
|---|---:|---:|---:|---:|---|---:|---:|
"""


def sh(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, encoding="utf-8")
    if done.returncode:
        sys.exit(f"ablations: `{' '.join(words)}` failed: {' '.join(done.stderr.split())}")
    return done.stdout


def head() -> str:
    return sh("git", "rev-parse", "HEAD").strip()


def experiments() -> dict[str, str]:
    """Names of the experiments of this commit, with their revisions."""
    refs = sh("git", "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    base = head()
    found = [line.split() for line in refs if f"/{base[:2]}/{base[2:]}/" in line]
    return {ref.rpartition("/")[2]: revision for ref, revision in found}


def numbers(revision: str) -> dict[str, Any]:
    """Metrics of the last policy and what was selected, at a revision."""
    show = lambda path: json.loads(sh("git", "show", f"{revision}:{path}"))  # noqa: E731
    selected = show("metrics/selected.json")
    last = list(selected["validation"])[-1]
    return show(f"metrics/policy/{last}.json")[last]["test"] | {"selected": selected["policy"]}


def stages_run(before: str, after: str) -> int:
    """How many stages have another entry in dvc.lock than at the revision before: those that ran."""
    old, new = (integrity.stages_in(sh("git", "show", f"{revision}:dvc.lock")) for revision in (before, after))
    return sum(entry != old.get(name) for name, entry in new.items())


def bound(facts: dict[str, Any], name: str) -> str:
    """A number with its interval."""
    low, high = facts[f"{name}_interval"]
    return f"{facts[name]:+.2f} [{low:.2f}, {high:.2f}]"


def row(title: str, facts: dict[str, Any], minutes: str, ran: str) -> str:
    gains = [bound(facts, "gain"), bound(facts, "over_offline")]
    seen = [f"{facts['kl']:.2f}", f"{facts['tokens']:.0f}", facts["selected"]]
    return f"| {' | '.join([title, *gains, *seen, minutes, ran])} |\n"


def spent() -> dict[str, float]:
    return json.loads(SPENT.read_text(encoding="utf-8")) if SPENT.exists() else {}


def run(name: str) -> None:
    """Queue one ablation, run the queue, and note the minutes it took."""
    settings = [word for setting in ABLATIONS[name] for word in ("-S", setting)]
    sh("dvc", "exp", "run", "--queue", "--name", name, *settings)
    start = time.monotonic()
    subprocess.run(["dvc", "exp", "run", "--run-all", "-j", "1"], check=True)
    minutes = (time.monotonic() - start) / 60
    SPENT.parent.mkdir(exist_ok=True)
    SPENT.write_text(json.dumps(spent() | {f"{head()} {name}": minutes}), encoding="utf-8")


def check(chosen: list[str]) -> None:
    """End with one line where the table cannot be made."""
    unknown = sorted(set(chosen) - set(ABLATIONS))
    if unknown:
        sys.exit(f"ablations: {unknown[0]!r} is none of {', '.join(ABLATIONS)}")
    if sh("git", "status", "--porcelain", "--untracked-files=no"):
        told = "the workspace has uncommitted changes, which every experiment would carry"
        sys.exit(f"ablations: {told}; commit them or `git checkout .`")
    if "gain" not in numbers("HEAD"):
        rule = "the table is of gains in gold reward, and this run has none"
        sys.exit(f"ablations: {rule}; set evaluate.gold, or use `dvc exp run` and `dvc exp show`")


def table(done: dict[str, str]) -> str:
    """The ablations that are done, under the run that they change."""
    base, known = head(), spent()
    minutes = {name: f"{known[key]:.0f}" for name in done if (key := f"{base} {name}") in known}
    lines = [row("none", numbers("HEAD"), "", "")]
    for name in (name for name in ABLATIONS if name in done):
        title = f"`-S {' -S '.join(ABLATIONS[name])}`"
        ran = str(stages_run("HEAD", done[name]))
        lines.append(row(title, numbers(done[name]), minutes.get(name, ""), ran))
    confidence = load(Path("params.yaml")).evaluate.confidence
    return HEADER.format(f"{100 * confidence:g} %") + "".join(lines)


def main() -> None:
    chosen = sys.argv[1:] or list(ABLATIONS)
    check(chosen)
    for name in chosen:
        if name not in experiments():
            run(name)
    done = experiments()
    TABLE.write_text(table(done), encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))
    failed = [name for name in chosen if name not in done]  # DVC's queue ends with 0 all the same
    if failed:
        remedy = f"see why with `dvc queue logs {failed[0]}`, and run this again"
        sys.exit(f"ablations: {', '.join(failed)} failed; {remedy}")


if __name__ == "__main__":
    main()
