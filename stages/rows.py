"""Map rows through a model in chunks of whole prompts, each kept as soon as it is finished: a run that was killed goes
on, and loses at most the chunks in flight.

`generate`, `respond`, every scorer with a model, `reference`, `measure` and `judge` share it. A worker is described by
something small that can be pickled (`Worker`), and loads its model once; a chunk is plain rows; its result is written
by whoever finished it, first under another name. So nothing here wants one process, or one machine; `deal` says who
works.

A chunk is kept in $STAGE_HOME/rows/$STAGE_KEY, under the hash of its rows and of what is asked of them. The guard names
both (stages/guard/chunks.py): the key stands for the stage's code, packages, params and inputs. Without them nothing is
kept. Where all chunks are there, no model is loaded.
"""

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from stages import shards

Tick = Callable[[float], object]
"""Told of rows as they are finished, for the bar."""
Work = Callable[[list[dict], Tick], list[dict]]
"""Rows of one chunk to their results; each result bears its row's key."""


class Worker(Protocol):
    """What a worker is: which model, how it is run. Pickled, it makes the same worker elsewhere."""

    columns: ClassVar[pa.Schema]
    """What it adds to a row."""

    def load(self) -> Work:
        """Called once by each worker."""
        ...


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows that are dealt together, the columns that name one, those that are wanted, and where the result is kept."""

    rows: list[dict]
    key: tuple[str, ...]
    columns: pa.Schema
    path: Path | None

    def __str__(self) -> str:
        first, last = (self.name(self.rows[place]) for place in (0, -1))
        return f"the chunk {first} to {last}"

    def name(self, row: dict) -> str:
        return "/".join(str(row[column]) for column in self.key)

    def check(self, found: list[dict]) -> None:
        """Raise ValueError unless every row has one result."""
        asked, given = (Counter(map(self.name, rows)) for rows in (self.rows, found))
        wrong = (asked - given) + (given - asked)
        if wrong:
            row = min(wrong)
            raise ValueError(
                f"row {row} went in {asked[row]} times and came out {given[row]} times; this is a bug of the worker"
            )

    def finish(self, work: Work, tick: Tick) -> list[dict]:
        """The results, in the rows' order; also kept."""
        found = work(self.rows, tick)
        self.check(found)
        places = {self.name(row): row for row in found}
        ordered = [places[self.name(row)] for row in self.rows]
        names = pa.table({column: [row[column] for row in self.rows] for column in self.key})
        table = shards.widened(names, ordered, self.columns)
        if self.path:
            keep(table, self.path)
        return table.to_pylist()

    def kept(self) -> list[dict] | None:
        """What an earlier run finished; None where it did not, or where the file is damaged, which is said."""
        if self.path is None or not self.path.exists():
            return None
        try:
            found = pq.read_table(self.path, page_checksum_verification=True).to_pylist()
            self.check(found)
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            told = " ".join(str(error).split())
            print(f"{self.path} is no whole chunk ({told}); its rows are computed again", flush=True)
            self.path.unlink(missing_ok=True)
            return None
        return found


def keep(table: pa.Table, path: Path) -> None:
    """Write a file that is there whole or not at all, whatever dies."""
    with suppress(FileNotFoundError):  # another run of this stage was first, and its guard took the folder away
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            pq.write_table(table, file, write_page_checksum=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)


Deal = Callable[[Worker, list[Chunk], Tick], Iterator[tuple[Chunk, list[dict]]]]
"""Gives chunks to workers, and each back with its results once it is finished, in any order."""


def here(worker: Worker, chunks: list[Chunk], tick: Tick) -> Iterator[tuple[Chunk, list[dict]]]:
    """One worker, in this process."""
    work = worker.load()
    for chunk in chunks:
        yield chunk, chunk.finish(work, tick)


deal: Deal = here
"""In use. The guard puts its pool of workers here for runtime.workers > 1 (stages/guard/pool.py); no result knows."""


def place(what: str, rows: list[dict]) -> Path | None:
    """Where a chunk is kept; None where the guard named no place."""
    folder, key = os.environ.get("STAGE_HOME"), os.environ.get("STAGE_KEY")
    if not folder or not key:
        return None
    text = json.dumps([what, rows], sort_keys=True)
    return Path(folder, "rows", key, f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.parquet")


def chunked(rows: list[dict], worker: Worker, what: str, size: int, key: tuple[str, ...]) -> list[Chunk]:
    """Rows as chunks of at most `size`, whole prompts unless one has more.

    Raises ValueError for a key that comes twice.
    """
    names = Counter(tuple(row[column] for column in key) for row in rows)
    twice = [name for name, number in names.items() if number > 1]
    if twice:
        told = "/".join(map(str, twice[0]))
        raise ValueError(f"row {told} stands {names[twice[0]]} times among the {len(rows)} given; make each once")
    return [Chunk(part, key, worker.columns, place(what, part)) for part in shards.cut(rows, size) if part]


def finished(chunks: list[Chunk], worker: Worker, what: str) -> dict[Chunk, list[dict]]:
    """Results by chunk, those of an earlier run among them; a bar over all rows."""
    found = {chunk: rows for chunk in chunks if (rows := chunk.kept()) is not None}
    if found:
        print(f"{what}: {len(found)} of {len(chunks)} chunks were finished by an earlier run", flush=True)
    left, done = [chunk for chunk in chunks if chunk not in found], sum(map(len, found.values()))
    total = sum(len(chunk.rows) for chunk in chunks)
    with tqdm(total=total, initial=done, desc=what, unit="row", disable=not left) as bar:
        for chunk, rows in deal(worker, left, bar.update) if left else ():
            found[chunk] = rows
            done += len(rows)
            bar.update(done - bar.n)
    return found


def mapped(
    parts: list[list[dict]],
    worker: Worker,
    what: str,
    size: int,
    key: tuple[str, ...] = ("id", "sample"),
) -> list[list[dict]]:
    """Each part's rows with `worker.columns`, in their order.

    `key` names a row within its part; no chunk, of about `size` rows, holds rows of two parts. `what` is the bar's
    name, and tells the several maps of one stage apart. Raises ValueError unless every row has one key and one result.
    """
    dealing = [chunked(rows, worker, what, size, key) for rows in parts]
    found = finished([chunk for part in dealing for chunk in part], worker, what)
    return [
        joined(rows, [result for chunk in part for result in found[chunk]], key)
        for rows, part in zip(parts, dealing, strict=True)
    ]


def joined(rows: list[dict], results: list[dict], key: tuple[str, ...]) -> list[dict]:
    """Rows with their results, by key."""
    places = {tuple(result[column] for column in key): result for result in results}
    return [row | places[tuple(row[column] for column in key)] for row in rows]


def over_shards(candidates: Path, scores: Path, worker: Worker, what: str, size: int) -> list[dict]:
    """Map every shard of a folder into one of the same name with the worker's columns; all its rows."""
    files = shards.files(candidates)
    tables = [pq.read_table(file) for file in files]
    parts = mapped([table.to_pylist() for table in tables], worker, what, size)
    scores.mkdir()
    for file, table, rows in zip(files, tables, parts, strict=True):
        pq.write_table(shards.widened(table, rows, worker.columns), scores / file.name)
    return [row for part in parts for row in part]
