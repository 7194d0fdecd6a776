"""What the guard, the fingerprint and DVC cost: a no-op repro against a bare DVC no-op on the same graph, and a CPU stage's start.

Run     python tests/perf/noop.py   (in a finished repository: after `make repro`, or in a smoke clone)
Prints  medians over five rounds, in seconds, and ratios

The bare graph is this one with every command replaced by `true` and the code keys left out, committed as it stands.
"""

import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROUNDS = 5
HELPERS = ("git init -q", "dvc init -q", "dvc commit -q -f")


def seconds(command: str, folder: Path) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.monotonic()
        subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)
        times.append(time.monotonic() - start)
    return statistics.median(times)


def bare_copy(folder: Path) -> None:
    """This tree with `true` for every command and no code keys; outputs are hard links, so nothing is copied."""
    for name in ("stages", "data", "models", "metrics"):
        shutil.copytree(name, folder / name, copy_function=lambda a, b: Path(b).hardlink_to(a), dirs_exist_ok=True)
    for name in ("params.yaml", "requirements.lock", "code.lock.yaml", ".gitignore", ".dvcignore"):
        shutil.copy2(name, folder / name)
    text = re.sub(r"cmd: >-\n(?:      .*\n)+", "cmd: 'true'\n", Path("dvc.yaml").read_text())
    text = re.sub(r"cmd: python.*", "cmd: 'true'", text)
    text = re.sub(r",? ?code\.lock\.yaml: \[[^]]*\]", "", text).replace("    - \n", "").replace("[]", "[dtype]")
    (folder / "dvc.yaml").write_text(text)
    for command in HELPERS:
        subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)


def main() -> None:
    here = Path(".").resolve()
    with tempfile.TemporaryDirectory(dir=here.parent) as name:
        bare_copy(Path(name))
        bare = seconds("dvc --wait-for-lock repro", Path(name))
    ours = seconds("dvc --wait-for-lock repro", here)
    stage = seconds("python -m stages.run select --table data/standings/pi2.json --metrics .scratch/selected.json", here)
    python = seconds("python -c pass", here)
    print(f"no-op: ours {ours:.2f} s, bare DVC {bare:.2f} s, ratio {ours / bare:.2f}")
    print(f"a CPU stage under the guard: {stage:.2f} s, of which Python's own start is {python:.2f} s")


if __name__ == "__main__":
    main()
