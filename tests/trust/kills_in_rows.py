"""Twenty kills inside `generate` and `score`, at random moments: each run goes on from the chunks that are there, loses
at most the one in flight, and the shards in the end are those of an undisturbed run, byte by byte.

Run     python -m tests.trust.kills_in_rows [kills]     (`make chaos` runs it too)
Prints  a line per kill, what it found and what it left; exits 1 where one lost more, or where a byte differs

Smoke profile, with 512 completions in chunks of 8; vLLM and the reward model are real, the stages run under the guard.
The kill takes the stage's whole family at once, as the kernel does that is out of memory.
"""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import copy_tree

KILLS = 20
SETTINGS = ["prompts.per_iteration=64", "generate.n=8", "generate.rows_per_shard=8"]
GUARD = [sys.executable, "-m", "stages.guard.run"]
SAMPLE = "sampling.generate --policy models/pi0 --rival models/base --prompts data/prompts/pi0.parquet --iteration pi0"
SCORE = "signals.scorers.reward_model --reward models/reward --candidates data/candidates/pi0"
FINISHED = re.compile(r"(\d+) of (\d+) chunks were finished")


def start(folder: Path, words: str, log: Path) -> subprocess.Popen:
    with log.open("w", encoding="utf-8") as file:
        return subprocess.Popen([*GUARD, *words.split()], cwd=folder, stdout=file, stderr=file, start_new_session=True)


def finish(folder: Path, words: str, log: Path) -> None:
    """Run a stage to its end. Raises RuntimeError where it fails."""
    if start(folder, words, log).wait():
        raise RuntimeError(log.read_text(encoding="utf-8")[-2000:])


def digest(folder: Path) -> str:
    """Of the names and bytes of all shards."""
    whole = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        whole.update(file.name.encode() + file.read_bytes())
    return whole.hexdigest()[:16]


def chunks(folder: Path) -> set[str]:
    """Names of the finished chunks of all runs."""
    return {file.name for file in (folder / ".scratch/rows").glob("*/*.parquet")}


def kill_at(run: subprocess.Popen, folder: Path, number: int, delay: float) -> bool:
    """Kill a run `delay` seconds after it has finished `number` chunks in all; False where it ended before."""
    while run.poll() is None and len(chunks(folder)) < number:
        time.sleep(0.002)
    time.sleep(delay)
    if run.poll() is not None:
        return False
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    return True


def disturbed(folder: Path, words: str, kills: int, draw: random.Random, log: Path) -> int:
    """Kill a stage so often, each time some chunks further on, then let it end.

    How many kills lost a chunk that was finished.
    """
    faults = 0
    for kill in range(kills):
        before = chunks(folder)
        run = start(folder, words, log)
        if not kill_at(run, folder, len(before) + draw.randint(1, 3), draw.uniform(0, 0.01)):
            print(f"  kill {kill + 1}: too late, it had ended: {log.read_text(encoding='utf-8')[-200:]}")
            return faults + 1
        after = chunks(folder)
        found = FINISHED.search(log.read_text(encoding="utf-8"))
        lost = before - after
        taken = int(found[1]) if found else 0
        reached = len(after) > len(before) or found is not None
        wrong = bool(lost) or (reached and taken != len(before))
        faults += wrong
        verdict = "WRONG" if wrong else "right"
        told = f"{len(before)} chunks before, {taken} taken up, {len(after)} after"
        print(f"  kill {kill + 1}: {told}: {verdict}", flush=True)
    before = len(chunks(folder))
    finish(folder, words, log)
    found = FINISHED.search(log.read_text(encoding="utf-8"))
    taken = int(found[1]) if found else 0
    print(f"  the last run took up {taken} of {before} chunks and ended; {len(chunks(folder))} are left behind")
    return faults + (taken != before) + bool(chunks(folder))


def proven(folder: Path, words: str, out: str, kills: int, draw: random.Random) -> bool:
    """Whether a stage under kills ends with the bytes of an undisturbed run."""
    log = folder / ".scratch/kills.log"
    finish(folder, f"{words} {out}-undisturbed", log)
    faults = disturbed(folder, f"{words} {out}", kills, draw, log)
    place = out.split()[-1]
    one, other = digest(folder / f"{place}-undisturbed"), digest(folder / place)
    print(f"{words.split()[0]}: {kills} kills, {faults} faults, undisturbed {one}, killed {other}", flush=True)
    return not faults and one == other


def main() -> None:
    kills, draw = int(sys.argv[1]) if sys.argv[1:] else KILLS, random.Random(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = copy_tree(Path(scratch))
        profile = [sys.executable, "-m", "stages.tools.profile", "smoke", *SETTINGS]
        subprocess.run(profile, cwd=folder, check=True, capture_output=True)
        (folder / "dvc.lock").unlink()  # it names the quickstart's candidates, and what is killed here is not DVC's
        wanted = ["sft", "reward_model@reward_model", "batch@t0"]
        done = subprocess.run(["dvc", "--wait-for-lock", "repro", *wanted], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
        (folder / ".scratch").mkdir(exist_ok=True)
        sampled = proven(folder, SAMPLE, "--candidates data/candidates/pi0", kills // 2, draw)
        scored = proven(folder, SCORE, "--scores data/scores/reward_model/pi0", kills - kills // 2, draw)
    sys.exit(0 if sampled and scored else "a kill lost more than the chunk in flight, or changed a byte")


if __name__ == "__main__":
    main()
