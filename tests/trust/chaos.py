"""Kill a run again and again, at random moments and in random places, and see that it ends as if nothing had happened.

Run     python -m tests.trust.chaos [kills=30] [seed=1]     (or: make chaos)
Prints  a line per kill, and at the end what was counted

Smoke profile, real DVC, vLLM and training. Each round starts `dvc --wait-for-lock repro`, waits a random while, and
sends KILL or TERM to dvc, to dvc just when a stage has ended and is being recorded, to the guard of the running stage,
or to the youngest process beneath it (not to the guard's watchdog). After each: nothing of the run is alive, and no
later round runs a stage that dvc.lock ever had. A file that DVC was writing when it died is mended as docs/recovery.md
says; where that is dvc.lock, the cheap stages of which git keeps an output run again. At the end dvc.lock equals that
of an undisturbed run in another folder, with another hash seed, locale, time zone, umask, and with a compiler.
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from stages.guard import integrity
from tests.conftest import copy_tree
from tests.trust import graph

REPRO = ["dvc", "--wait-for-lock", "repro"]
ODD = {"PYTHONHASHSEED": "4711", "LC_ALL": "C", "TZ": "Asia/Tokyo", "CXX": "/nonexistent"}
"""With a umask of 077, and nothing that a compiler built before: nothing of it may show in the results."""
KINDS = ["dvc", "commit", "guard", "youngest"]
SIGNALS = [signal.SIGKILL, signal.SIGTERM]
AFTER = (1, 40)
"""Seconds from the start of a run to its kill, at least and at most."""
HALF_WRITTEN = r"dvc\.lock' (is invalid|validation failed)|failed to reproduce '.+': $"
"""What DVC says of a lock that it was writing when it died."""


def children(pid: int) -> list[int]:
    """The process's descendants, eldest first."""
    try:
        files = [task / "children" for task in Path(f"/proc/{pid}/task").iterdir()]
        own = [int(child) for file in files for child in file.read_text(encoding="utf-8").split()]
    except OSError:
        return []
    return sorted(own + [grandchild for child in own for grandchild in children(child)])


def alive(folder: Path) -> list[str]:
    """Command lines of the processes that work in the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "cwd") == str(folder):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:90] or entry.name)
        except OSError:
            continue
    return found


def fresh(folder: Path) -> Path:
    """A clone of the working tree, on the smoke profile, whose commit has a lock that records nothing."""
    copy_tree(folder)
    (folder / "dvc.lock").write_text("schema: '2.0'\n", encoding="utf-8")
    words = f"{sys.executable} -m stages.tools.profile smoke && git commit -qam smoke"
    subprocess.run(words, shell=True, cwd=folder, check=True, capture_output=True)
    return folder


def recorded(folder: Path) -> dict[str, object]:
    """The lock as a mapping of stage to what was recorded of it; an empty one where DVC died while it wrote them."""
    try:
        return dict(integrity.locked_stages(folder))
    except (yaml.YAMLError, AttributeError):
        return {}


def start(folder: Path, log: Path, targets: list[str]) -> subprocess.Popen:
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(folder / ".scratch/compiled")}
    odd = {"env": os.environ | ODD | compiled, "umask": 0o077}
    with log.open("wb") as out:
        said = {"stdout": out, "stderr": subprocess.STDOUT}
        return subprocess.Popen([*REPRO, *targets], cwd=folder, start_new_session=True, **odd, **said)


def ignores_term(pid: int) -> bool:
    """Whether the process shrugs SIGTERM off, as Python's resource tracker does, on which no result depends."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    ignored = int(re.findall(r"SigIgn:\s+(\w+)", status)[0], 16)  # a bit for each signal, the first the lowest
    return bool(ignored >> (signal.SIGTERM - 1) & 1)


def victim(run: subprocess.Popen, kind: str) -> int:
    """dvc itself, now or when the running stage has ended; the guard (the eldest child: the shell gives way to it);
    the youngest process of all.
    """
    if kind == "commit":
        while children(run.pid):
            time.sleep(0.01)
        time.sleep(random.uniform(0, 1))  # outputs are hashed and copied, then dvc.lock is written
    family = [pid for pid in children(run.pid) if os.getsid(pid) != pid]  # the watchdog leads a session of its own
    below = [pid for pid in family if not ignores_term(pid)]
    if kind in ("dvc", "commit") or not below:
        return run.pid
    return below[0] if kind == "guard" else below[-1]


def settle(run: subprocess.Popen, folder: Path) -> None:
    """Wait until dvc has ended and nothing of it is alive. Raises AssertionError after 30 seconds."""
    end = time.monotonic() + 30
    while run.poll() is None or alive(folder):
        assert time.monotonic() < end, f"still alive: {alive(folder)}"
        time.sleep(0.1)


def ran(log: Path) -> list[str]:
    return re.findall(r"Running stage '(.+)'", log.read_text(encoding="utf-8"))


def kept_by_git(folder: Path) -> set[str]:
    """The stages of which git keeps an output: DVC's run-cache lacks them, so they run again without a lock."""
    return {name for name, stage in graph.stages(folder).items() if not all(out.use_cache for out in stage.outs)}


def mend(folder: Path, log: Path) -> None:
    """Do what docs/recovery.md says of a file that DVC was writing when it died.

    Raises AssertionError where the run failed for another reason.
    """
    said = log.read_text(encoding="utf-8")
    if "Unable to read RWLock-file" in said:
        (folder / ".dvc/tmp/rwlock").unlink()
    else:
        assert re.search(HALF_WRITTEN, said, re.M), said[-3000:]
        subprocess.run(["git", "checkout", "-q", "dvc.lock"], cwd=folder, check=True)
    error = said[-200:].split("ERROR: ")[-1].strip()
    print(f"    mended: {error}", flush=True)


def kill_once(
    folder: Path, known: set[str], kind: str, sign: signal.Signals, wait: float, *targets: str
) -> tuple[list[str], set[str], bool]:
    """One round: stages started, those of them in `known`, where all that was ever recorded is kept, and whether the
    run had ended by itself.
    """
    log = folder / ".scratch/chaos.log"
    log.parent.mkdir(exist_ok=True)
    run = start(folder, log, list(targets))
    try:
        if run.wait(wait):
            mend(folder, log)
            known -= kept_by_git(folder)
            return kill_once(folder, known, kind, sign, wait, *targets)
    except subprocess.TimeoutExpired:
        os.kill(victim(run, kind), sign)
    settle(run, folder)
    started = ran(log)
    twice = known.intersection(started)
    known.update(recorded(folder))
    return started, twice, run.returncode == 0


def finish(folder: Path, *targets: str) -> None:
    """Run undisturbed to the end."""
    log = folder / ".scratch/chaos.log"
    while start(folder, log, list(targets)).wait():
        mend(folder, log)
    assert not list(folder.rglob(".partial/*"))


def begin_anew(folder: Path) -> None:
    """Forget all that was recorded and computed."""
    words = "git checkout -q dvc.lock && rm -rf .dvc/cache && git clean -qfdX data models"
    subprocess.run(words, shell=True, cwd=folder, check=True)


def kill_often(folder: Path, calm: Path, kills: int) -> None:
    """So many kills, a line each. Raises AssertionError for a stage that was recorded and runs again."""
    done, known = 0, set()
    while done < kills:
        kind, sign, wait = random.choice(KINDS), random.choice(SIGNALS), random.uniform(*AFTER)
        started, twice, ended = kill_once(folder, known, kind, sign, wait)
        assert not twice, f"computed again although recorded: {twice}"
        if ended:  # nothing left to kill
            assert recorded(folder) == recorded(calm)
            begin_anew(folder)
            known.clear()
            continue
        done += 1
        where, number = (started or ["dvc"])[-1], len(recorded(folder))
        print(
            f"{done:2d}  {sign.name} to {kind:8s} after {wait:4.1f} s in {where}; {number} stages recorded", flush=True
        )


def main() -> None:
    kills, seed = int((sys.argv[1:] or ["30"])[0]), int((sys.argv[2:] or ["1"])[0])
    random.seed(seed)
    with tempfile.TemporaryDirectory() as scratch:
        calm, folder = (fresh(Path(scratch) / name) for name in ("calm", "chaos"))
        subprocess.run(REPRO, cwd=calm, check=True, capture_output=True)
        kill_often(folder, calm, kills)
        finish(folder)
        assert recorded(folder) == recorded(calm), "dvc.lock differs from that of the undisturbed run"
    print(f"{kills} of {kills} kills: the same dvc.lock as an undisturbed run, no process left,", end=" ")
    print("nothing recorded computed twice, no partial file")


if __name__ == "__main__":
    main()
