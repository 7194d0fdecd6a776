"""DVC experiments of the run at hand: run them, find those that were run, read what stands at a revision.

The run at hand is HEAD: params.yaml, dvc.lock and metrics/ as they are committed. An experiment is a commit beside it,
made in a folder of its own, so the workspace stays as it is. It shares the cache: only what its settings invalidate
runs. Once finished it is kept by git, whatever becomes of the process that asked for it.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.guard import integrity

MINUTES = Path(".scratch/minutes.json")
"""What each experiment took, by its revision: DVC does not keep it."""
REFERENCE = re.compile(r"^refs/exps/(..)/(.{38})/(\S+) (\S+)$", re.M)
"""The commit that an experiment is of, in two parts; its name; its own revision."""


@contextmanager
def in_one_line(tool: str) -> Iterator[None]:
    """A tool's errors end it with one line."""
    try:
        yield
    except ValueError as error:
        sys.exit(f"{tool}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{tool}: stopped; what is finished is kept, so run this again for the rest")


def git(*words: str) -> str:
    """What git prints. Raises ValueError where it fails."""
    done = subprocess.run(["git", *words], capture_output=True, encoding="utf-8")
    if done.returncode:
        raise ValueError(f"`git {' '.join(words)}` failed: {' '.join(done.stderr.split())}")
    return done.stdout


def shown(revision: str, path: str) -> str:
    """A file's text at a revision. Raises ValueError where it is not there."""
    try:
        return git("show", f"{revision}:{path}")
    except ValueError as error:
        remedy = "run `dvc --wait-for-lock repro` and commit its results"
        raise ValueError(f"{path} is not in {revision[:7]}; {remedy}") from error


def facts(revision: str, path: str) -> Any:
    """A JSON file's content at a revision. Raises ValueError where it is not there."""
    return json.loads(shown(revision, path))


def recorded(revision: str) -> dict[str, dict]:
    """What dvc.lock says of every stage but the fingerprint, whose entry changes with any word of the code."""
    stages = integrity.stages_in(shown(revision, "dvc.lock"))
    return {name: entry for name, entry in stages.items() if name != "fingerprint"}


def stages_run(revision: str) -> int:
    """How many stages have another entry in dvc.lock than in the run at hand: those that ran."""
    before, after = recorded("HEAD"), recorded(revision)
    return sum(entry != before.get(name) for name, entry in after.items())


def finished() -> dict[str, str]:
    """Names of the experiments of the run at hand, with their revisions.

    Those of HEAD, and those of commits whose dvc.lock says the same: to commit a page or a table loses none.
    """
    listed = git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps")
    found = [(begin + rest, name, revision) for begin, rest, name, revision in REFERENCE.findall(listed)]
    head, here = git("rev-parse", "HEAD").strip(), recorded("HEAD")
    of_this_run = {base for base in {base for base, *_ in found} if base == head or recorded(base) == here}
    last = sorted(found, key=lambda experiment: experiment[0] == head)  # so that of two with one name HEAD's counts
    return {name: revision for base, name, revision in last if base in of_this_run}


def check_clean(*own: Path) -> None:
    """Raise ValueError where a file that git tracks, but for the tool's own tables, is not as in HEAD."""
    if git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{path}" for path in own)):
        told = "the workspace has uncommitted changes, which every experiment would carry"
        raise ValueError(f"{told}; commit them or `git checkout .`")


def check_up_to_date() -> None:
    """Raise ValueError where the run at hand is not what the settings and the code say now: experiments would differ
    from it by more than their settings.
    """
    words = ["dvc", "--wait-for-lock", "repro", "--allow-missing", "--dry"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8")
    if "up to date" not in done.stdout:
        waiting = re.findall(r"^Running stage '([^']+)'", done.stdout, re.M)
        told = f"{waiting[0]} would run" if waiting else " ".join(done.stderr.split())[-200:]
        raise ValueError(
            f"the run at hand is out of date ({told}); run `dvc --wait-for-lock repro` and commit its results"
        )


def run(wanted: dict[str, list[str]]) -> None:
    """Run experiments one after another, each a name and its settings, and note the minutes. One that fails says why on
    the terminal, and is none of the finished.
    """
    if wanted:
        check_up_to_date()
    for number, (name, settings) in enumerate(wanted.items(), start=1):
        print(f"experiment {number} of {len(wanted)}: {name}", flush=True)
        options = [word for setting in settings for word in ("-S", setting)]
        start = time.monotonic()
        subprocess.run(["dvc", "--wait-for-lock", "exp", "run", "--temp", "--name", name, *options])
        if revision := finished().get(name):
            note(revision, (time.monotonic() - start) / 60)


def note(revision: str, took: float) -> None:
    """Keep the minutes of an experiment."""
    MINUTES.parent.mkdir(exist_ok=True)
    partial = MINUTES.with_suffix(".partial")
    partial.write_text(json.dumps(minutes() | {revision: took}), encoding="utf-8")
    partial.replace(MINUTES)


def minutes() -> dict[str, float]:
    """Minutes that each experiment took on this machine, by its revision."""
    return json.loads(MINUTES.read_text(encoding="utf-8")) if MINUTES.exists() else {}


def minutes_told(revision: str) -> str:
    """The same of one, for a table; empty where it ran elsewhere."""
    took = minutes().get(revision)
    return "" if took is None else f"{took:.0f}"
