"""The number of shards changes no result: one iteration's prompts dealt to 1, 2 and 5 shards give the same candidates,
scores and pairs.

Run     python -m tests.trust.shards     (make chaos runs it too)
Prints  a line per number of shards, with the digest of what came out

Smoke profile; each shard is sampled by a vLLM of its own and scored by a reward model of its own.
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from tests.conftest import copy_tree


def run(folder: Path, *words: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stages.guard.run", *map(str, words)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def digest(paths: list[Path], keys: list[str]) -> str:
    """Of all rows of the files, in the order of their keys, without regard to which file holds which."""
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    return hashlib.sha256(repr(sorted(rows, key=lambda row: [row[key] for key in keys])).encode()).hexdigest()[:16]


def iteration(folder: Path, shards: int) -> dict[str, str]:
    """Digests of candidates, scores and pairs of t0, dealt to so many shards."""
    own = Path(f".scratch/{shards}-shards")
    names = {kind: [own / f"{kind}-{k}.parquet" for k in range(shards)] for kind in ("prompts", "candidates", "scores")}
    (folder / own).mkdir(parents=True)
    (folder / own / "verdict.json").write_text('{"stop": false}')
    run(
        folder,
        "data.batch",
        "--pool",
        "data/prompts/pool.parquet",
        "--verdict",
        own / "verdict.json",
        "--iteration",
        "t0",
        "--shards",
        *names["prompts"],
    )
    for prompts, candidates, scores in zip(*names.values(), strict=True):
        reads = ["--policy", "models/pi0", "--rival", "models/base", "--prompts", prompts, "--iteration", "t0"]
        run(folder, "sampling.generate", *reads, "--candidates", candidates)
        run(
            folder,
            "signals.scorers.reward_model",
            "--reward",
            "models/reward",
            "--candidates",
            candidates,
            "--scores",
            scores,
        )
    pairs = own / "pairs.parquet"
    run(
        folder,
        "pairs.rank",
        "--scores",
        *names["scores"],
        "--iteration",
        "t0",
        "--pairs",
        pairs,
        "--metrics",
        own / "rank.json",
    )
    found = {
        kind: digest([folder / path for path in names[kind]], ["id", "sample"]) for kind in ("candidates", "scores")
    }
    return {**found, "pairs": digest([folder / pairs], ["id"])}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = copy_tree(Path(scratch))
        subprocess.run(
            [sys.executable, "-m", "stages.tools.profile", "smoke"], cwd=folder, check=True, capture_output=True
        )
        subprocess.run(
            ["dvc", "--wait-for-lock", "repro", "sft", "reward_model", "prompts"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        found = {shards: iteration(folder, shards) for shards in (1, 2, 5)}
    for shards, digests in found.items():
        print(f"{shards} shards: {digests}")
    sys.exit(0 if len({str(digests) for digests in found.values()}) == 1 else "the number of shards changes the result")


if __name__ == "__main__":
    main()
