"""What reruns after an edit: each edit made alone in a scratch clone, on the real graph, with stages that only digest
what they read.

Run     python -m tests.trust.invalidation [name of an edit ...]     (or: make invalidation)
Prints  a Markdown table for docs/what-reruns.md: the edit, the stages executed, and their seconds against the least
        that had to run

For every edit: DVC executed exactly the expected stages; these are exactly the ones whose inputs changed; and every
output equals, to the byte, that of a run from scratch, which is computed without DVC.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from stages.guard import fingerprint
from tests.conftest import copy_tree
from tests.trust import graph, standin
from tests.trust.edits import EDITS, Edit

HEADER = """\
| edit | stages executed | seconds | least | ratio | outputs as from scratch |
|---|---|---:|---:|---:|---|"""


class Outcome(NamedTuple):
    """The stages that an edit made DVC execute, those that were expected, those whose inputs changed, and the outputs
    that differ from a run from scratch.
    """

    executed: set[str]
    expected: set[str]
    needed: set[str]
    stale: list[str]

    @property
    def exact(self) -> bool:
        return self.executed == self.expected and self.executed - {"fingerprint"} == self.needed and not self.stale


class Scene:
    """A finished stand-in run in a clone; `try_edit` makes one edit, lets DVC work, looks, and puts everything back."""

    def __init__(self, clone: Path) -> None:
        self.clone, bin_folder = clone, clone / ".scratch/bin"
        bin_folder.mkdir(parents=True)
        script = f'#!/bin/sh\nexec {sys.executable} -m tests.trust.standin "$@"\n'
        (bin_folder / "python").write_text(script, encoding="utf-8")
        (bin_folder / "python").chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        (clone / "dvc.lock").unlink(missing_ok=True)
        self.sh("dvc --wait-for-lock repro")
        self.sh("git add -A && git commit -qm run")
        self.before, self.commit = self.oracle(), self.sh("git rev-parse HEAD").strip()

    def sh(self, command: str) -> str:
        done = subprocess.run(command, shell=True, cwd=self.clone, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
        return done.stdout

    def oracle(self) -> dict[str, tuple[bytes, dict[str, bytes]]]:
        """Stage to (digest of what it reads, its outputs): the run from scratch, computed in order and without DVC."""
        fingerprint.imports.cache_clear()
        fingerprint.lock.cache_clear()
        made: dict[str, bytes] = {}
        found: dict[str, tuple[bytes, dict[str, bytes]]] = {}
        self.graph = graph.stages(self.clone)
        for name, stage in self.graph.items():
            if name != "fingerprint":
                inputs = {dep: made.get(dep) or self.gathered(dep, made) for dep in graph.deps(stage)}
                digest = standin.answer(self.clone, graph.words_of(stage), inputs)
                found[name] = digest, {out: standin.written(digest, out) for out in graph.outs(stage)}
                made |= found[name][1]
        return found

    def gathered(self, dep: str, made: dict[str, bytes]) -> bytes:
        """Raw data, or a folder of metrics: what `made` says its files hold, and as they are those of nobody."""
        folder = self.clone / dep
        if not any(path.startswith(f"{dep}/") for path in made):
            return standin.content(folder)
        held = {path.name: path.read_bytes() for path in folder.iterdir()}
        held |= {Path(path).name: text for path, text in made.items() if str(Path(path).parent) == dep}
        return b"".join(name.encode() + held[name] for name in sorted(held))

    def stale(self, fresh: dict[str, tuple[bytes, dict[str, bytes]]]) -> list[str]:
        """The outputs that differ from those of `fresh`, an oracle."""
        made = {out: text for _, each in fresh.values() for out, text in each.items()}
        return [out for out, text in made.items() if (self.clone / out).read_bytes() != text]

    def try_edit(self, edit: Edit) -> Outcome:
        before = self.before
        if edit.given:
            self.sh(f"python -m stages.tools.profile quickstart {' '.join(map(shlex.quote, edit.given))}")
            self.sh("dvc --wait-for-lock repro && git add -A && git commit -qm given")
            before = self.oracle()
        edit.change(self.clone)
        executed = set(re.findall(r"Running stage '(.+)'", self.sh("dvc --wait-for-lock repro --no-run-cache")))
        after = self.oracle()
        expected = graph.downstream(self.graph, edit.roots) | ({"fingerprint"} if edit.code else set())
        needed = {name for name, (digest, _) in after.items() if digest != before.get(name, (b"",))[0]}
        outcome = Outcome(executed, expected, needed, self.stale(after))
        self.sh(f"git reset -q --hard {self.commit} && git clean -qfd && dvc checkout -q --force")
        return outcome


def seconds() -> dict[str, float]:
    """Seconds of one run of each stage's module, from the table of docs/performance.md."""
    page = Path("docs/performance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| (\d+) \| .*\| ([\d.]+) \|$", page, re.M)
    return {name: float(total) / int(runs) for name, runs, total in rows}


def line(title: str, edit: Edit, outcome: Outcome, spent: float, least: float) -> str:
    """A row of the table; `spent` and `least` in seconds."""
    told = ", ".join(edit.roots) or "none"
    if edit.roots:
        told += " and what follows"
    if edit.code:
        told += ", fingerprint"
    ratio = spent / least if least else 1.0
    said = ", ".join(outcome.stale) or "yes"
    return f"| {title} | {len(outcome.executed)}: {told} | {spent:.0f} | {least:.0f} | {ratio:.2f} | {said} |"


def main() -> None:
    cost, wrong = seconds(), 0
    chosen = {name: edit for name, edit in EDITS.items() if not sys.argv[1:] or name in sys.argv[1:]}
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(copy_tree(Path(folder)))
        for title, edit in chosen.items():
            outcome = scene.try_edit(edit)
            prices = {name: cost.get(graph.module_of(stage), 1.0) for name, stage in scene.graph.items()}
            spent = sum(prices[name] for name in outcome.executed - {"fingerprint"})
            least = sum(prices[name] for name in outcome.needed)
            wrong += not outcome.exact
            print(line(title, edit, outcome, spent, least), flush=True)
    if wrong:
        sys.exit(f"{wrong} of {len(chosen)} edits did not rerun what they should")
    print(f"{len(chosen)} edits, all exact")


if __name__ == "__main__":
    main()
