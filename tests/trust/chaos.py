"""Kill a run again and again, at random moments and in random places, and see that it ends as if nothing had happened.

Run     python -m tests.trust.chaos [kills=30] [seed=1]     (or: make chaos)
Prints  a line per kill, and at the end what was counted

Smoke profile, real DVC, vLLM and training. Each round starts `dvc --wait-for-lock repro`, waits a random while, and sends KILL or TERM to dvc,
to dvc just when a stage has ended and is being recorded, to the guard of the running stage, or to the youngest process beneath it (not to the
guard's watchdog). After each: nothing of the run is alive, and the next round runs no stage again that dvc.lock had. At the end dvc.lock equals
that of an undisturbed run in another folder, with another hash seed, locale, time zone and umask.
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

from stages import integrity
from tests.conftest import copy_tree

REPRO = ["dvc", "--wait-for-lock", "repro"]
ODD = {"PYTHONHASHSEED": "4711", "LC_ALL": "C", "TZ": "Asia/Tokyo"}  # and a umask of 077: nothing of it may show in the results


def children(pid: int) -> list[int]:
    """The process's descendants, eldest first."""
    try:
        own = [int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]
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


def recorded(folder: Path) -> dict[str, object]:
    """The locks as a mapping of stage to what was recorded of it."""
    return dict(integrity.locked_stages(folder))


def start(folder: Path, log: Path, targets: list[str]) -> subprocess.Popen:
    with log.open("w") as out:
        return subprocess.Popen([*REPRO, *targets], cwd=folder, env=os.environ | ODD, umask=0o077, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


def ignores_term(pid: int) -> bool:
    """Whether the process shrugs SIGTERM off, as Python's resource tracker does, on which no result depends."""
    return bool(int(re.findall(r"SigIgn:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())[0], 16) >> (signal.SIGTERM - 1) & 1)


def victim(run: subprocess.Popen, kind: str) -> int:
    """dvc itself, now or when the running stage has ended; the guard (the eldest child: the shell gives way to it); the youngest process of all."""
    while kind == "commit" and children(run.pid):
        time.sleep(0.01)
    below = [pid for pid in children(run.pid) if os.getsid(pid) != pid and not ignores_term(pid)]  # the watchdog leads a session of its own
    return run.pid if kind in ("dvc", "commit") or not below else below[0] if kind == "guard" else below[-1]


def settle(run: subprocess.Popen, folder: Path) -> None:
    """Wait until dvc has ended and nothing of it is alive. Raises AssertionError after 30 seconds."""
    end = time.monotonic() + 30
    while run.poll() is None or alive(folder):
        assert time.monotonic() < end, f"still alive: {alive(folder)}"
        time.sleep(0.1)


def ran(log: Path) -> list[str]:
    return re.findall(r"Running stage '(?:.+:)?(.+)'", log.read_text())


def kill_once(folder: Path, kind: str, sign: signal.Signals, wait: float, *targets: str) -> tuple[list[str], set[str], bool]:
    """One round: stages started, those that were recorded before it and yet ran again, and whether the run had ended by itself."""
    before, log = recorded(folder), folder / ".scratch/chaos.log"
    log.parent.mkdir(exist_ok=True)
    run = start(folder, log, list(targets))
    try:
        run.wait(wait)
    except subprocess.TimeoutExpired:
        os.kill(victim(run, kind), sign)
    settle(run, folder)
    started = ran(log)
    return started, {name for name in started if name in before}, run.returncode == 0


def finish(folder: Path, *targets: str) -> None:
    """Run undisturbed to the end."""
    log = folder / ".scratch/chaos.log"
    assert not start(folder, log, list(targets)).wait(), log.read_text()[-3000:]
    assert not list(folder.rglob(".partial/*"))


def main() -> None:
    kills, seed = int((sys.argv[1:] or ["30"])[0]), int((sys.argv[2:] or ["1"])[0])
    random.seed(seed)
    with tempfile.TemporaryDirectory() as scratch:
        calm, folder = (copy_tree(Path(scratch) / name) for name in ("calm", "chaos"))
        for clone in (calm, folder):
            for name in integrity.LOCKS:
                (clone / name).unlink(missing_ok=True)
            subprocess.run([sys.executable, "-m", "stages.profile", "smoke"], cwd=clone, check=True, capture_output=True)
        subprocess.run(REPRO, cwd=calm, check=True, capture_output=True)
        done = 0
        while done < kills:
            kind, sign, wait = random.choice(["dvc", "commit", "guard", "youngest"]), random.choice([signal.SIGKILL, signal.SIGTERM]), random.uniform(1, 40)
            started, twice, ended = kill_once(folder, kind, sign, wait)
            assert not twice, f"computed again although recorded: {twice}"
            if ended:  # nothing left to kill: begin anew
                assert recorded(folder) == recorded(calm)
                subprocess.run("rm -rf dvc.lock signals/dvc.lock .dvc/cache && git clean -qfdX data models", shell=True, cwd=folder, check=True)
                continue
            done += 1
            print(f"{done:2d}  {sign.name} to {kind:8s} after {wait:4.1f} s in {(started or ['dvc'])[-1]}; {len(recorded(folder))} stages recorded", flush=True)
        finish(folder)
        assert recorded(folder) == recorded(calm), "dvc.lock differs from that of the undisturbed run"
        print(f"{done} of {kills} kills: the same dvc.lock as an undisturbed run, no process left, nothing recorded computed twice, no partial file")


if __name__ == "__main__":
    main()
