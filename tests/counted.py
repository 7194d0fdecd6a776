"""Rows to deal, a worker that counts, and a scorer with a tiny model: for tests of chunks and of workers."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pyarrow as pa

from stages import rows, shards


@dataclass(frozen=True)
class Counted:
    """A worker: the length of each text; a line in `log` for each chunk it begins.

    It is killed by the kernel at the text `fatal` so often as `lives` says, loses the row `lost`, doubles `twice`.
    """

    log: Path
    fatal: str = ""
    lives: int = 0
    lost: str = ""
    twice: str = ""
    seconds: float = 0.0
    columns: ClassVar[pa.Schema] = pa.schema([("length", pa.int64()), ("share", pa.float64())])

    def load(self) -> rows.Work:
        def count(asked: list[dict], tick: rows.Tick) -> list[dict]:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(" ".join(row["text"] for row in asked) + "\n")
            time.sleep(self.seconds)
            begun = self.log.read_text(encoding="utf-8").splitlines()
            deaths = sum(self.fatal in line.split() for line in begun)
            if deaths <= self.lives and any(row["text"] == self.fatal for row in asked):
                os.kill(os.getpid(), signal.SIGKILL)
            made = [row | {"length": len(row["text"]), "share": 1 / 3} for row in asked if row["text"] != self.lost]
            return made[::-1] + [row for row in made if row["text"] == self.twice]

        return count

    def begun(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []


def texts(*prompts: tuple[str, int]) -> list[dict]:
    """Rows of so many samples for each prompt."""
    return [{"id": name, "sample": k, "text": f"{name}{k}"} for name, number in prompts for k in range(number)]


ROWS = texts(("a", 2), ("b", 2), ("c", 2))
LENGTHS = [row | {"length": 2, "share": 1 / 3} for row in ROWS]


def score(reward: Path, candidates: Path, scores: Path) -> None:
    from stages.signals.scorers import reward_model

    runtime = SimpleNamespace(threads=1, forward_batch_tokens=64)
    reward_model.main(SimpleNamespace(dtype="float32", runtime=runtime), reward, candidates, scores=scores)


def candidates(folder: Path, number: int, rows_per_shard: int) -> Path:
    """Answers of unlike lengths, four to a prompt."""
    from stages.signals import pairs_as_candidates

    said = [
        {
            "id": f"p{n // 4}",
            "sample": n % 4,
            "prompt": [{"role": "user", "content": f"Tell me about {n // 4}."}],
            "completion": "bees and honey " * (n % 7 + 1),
            "finished": n % 3 > 0,
        }
        for n in range(number)
    ]
    shards.write(folder, said, pairs_as_candidates.SCHEMA, rows_per_shard)
    return folder


def content(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in shards.files(folder)]
