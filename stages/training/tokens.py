"""Rows as token ids on disk, made once for a training: every process of it maps the same file, and none holds all rows.

At the paper's size, 700,000 pairs, Python lists in each of eight processes would take 45 GB and half an hour each. The
first process that comes writes Arrow files of int32 beside the run's checkpoints (STAGE_SCRATCH), by all cores; the
others wait for the lock and read them. A run that is started again finds them. Rows stay in their order, so the
trainer sees the same whoever wrote them.
"""

import fcntl
import json
import multiprocessing
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from stages import chat

BATCH = 1_000
"""Rows that a process tokenizes at a time."""
ALONE = 20_000
"""Rows below which starting more processes costs more than it saves."""

IDS = pa.list_(pa.int32())
Sort = Callable[[Any, dict], tuple[str, dict]]
"""A tokenizer and a row to the name of the part that it belongs to and its columns there; or to the name of the rule
that leaves it out. It can be pickled.
"""


Words = tuple[Path, Sort, dict[str, pa.Schema]]
"""What a process that tokenizes is told: the model whose tokenizer it is, the rule, the parts."""
Made = tuple[Counter[str], dict[str, pa.RecordBatch]]
"""Rows by name, and those of each part."""


class Parts(NamedTuple):
    """The data sets by their names, and how many rows each rule left out."""

    sets: dict[str, Any]
    drops: Counter[str]


def of_file(
    file: Path, columns: list[str], model: Path, sort: Sort, parts: dict[str, pa.Schema], number: int | None = None
) -> Parts:
    """`once` for the first `number` rows of a parquet file, all for None."""
    with pq.ParquetFile(file) as rows:
        wanted = rows.metadata.num_rows if number is None else number
        return once(rows.iter_batches(BATCH, columns=columns), wanted, model, sort, parts)


def once(rows: Iterable[pa.RecordBatch], number: int, model: Path, sort: Sort, parts: dict[str, pa.Schema]) -> Parts:
    """The first `number` rows, sorted into `parts` and mapped from disk; `rows` are read where nobody did it before.

    Raises ValueError for a row that `sort` cannot take.
    """
    from datasets import Dataset

    folder = Path(os.environ.get("STAGE_SCRATCH") or tempfile.mkdtemp(prefix="training-")) / "tokens"
    folder.mkdir(parents=True, exist_ok=True)
    counted = folder / "rows.json"
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not counted.exists():
            found = written(folder, tokenized(rows, number, (model, sort, parts)), parts)
            counted.with_suffix(".part").write_text(json.dumps(found), encoding="utf-8")
            os.replace(counted.with_suffix(".part"), counted)
    found = json.loads(counted.read_text(encoding="utf-8"))
    drops = Counter({name: rows for name, rows in found.items() if name not in parts})
    return Parts({name: Dataset.from_file(str(folder / f"{name}.arrow")) for name in parts}, drops)


def written(folder: Path, made: Iterator[Made], parts: dict[str, pa.Schema]) -> Counter[str]:
    """One Arrow stream for each part; rows by the names that `sort` gave."""
    found: Counter[str] = Counter()
    with ExitStack() as stack:
        streams = {
            name: stack.enter_context(pa.ipc.new_stream(folder / f"{name}.arrow", schema))
            for name, schema in parts.items()
        }
        for counts, batches in made:
            found += counts
            for name, batch in batches.items():
                streams[name].write_batch(batch)
    return found


def tokenized(rows: Iterable[pa.RecordBatch], number: int, words: Words) -> Iterator[Made]:
    """Every row sorted, in order, with a bar; by all cores where there are many rows."""
    batches, cores = cut(rows, number), len(os.sched_getaffinity(0))
    with tqdm(total=number, desc="tokenize", unit="row", disable=number < ALONE) as bar, ExitStack() as stack:
        if number < ALONE or cores == 1:
            begin(*words)
            made = map(work, batches)
        else:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(cores, begin, words))
            made = by_pool(pool, cores, batches)
        for counts, batch in made:
            yield counts, batch
            bar.update(counts.total())


def cut(rows: Iterable[pa.RecordBatch], number: int) -> Iterator[pa.RecordBatch]:
    """The first `number` rows, in batches of at most BATCH."""
    for batch in rows:
        for k in range(0, min(len(batch), number), BATCH):
            yield batch.slice(k, min(BATCH, number - k))
        number -= len(batch)
        if number <= 0:
            return


def by_pool(pool: Any, cores: int, batches: Iterator[pa.RecordBatch]) -> Iterator[Made]:
    """A few batches for each core at a time, so that what is read stays little."""
    while part := list(islice(batches, 4 * cores)):
        try:
            yield from pool.map(work, part, chunksize=1)
        except ValueError as error:  # raised from here the guard takes it for what it is: a row's fault, no bug
            raise ValueError(str(error)) from None


STATE: dict[str, Any] = {}
"""Of a process that tokenizes: the tokenizer, the rule, the parts."""


def begin(model: Path, sort: Sort, parts: dict[str, pa.Schema]) -> None:
    STATE.update(tokenizer=chat.load_tokenizer(model), sort=sort, parts=parts)


def work(batch: pa.RecordBatch) -> Made:
    """The rows of a batch under the names that `sort` gives; those of the parts as their columns."""
    named = [STATE["sort"](STATE["tokenizer"], row) for row in batch.to_pylist()]
    counts = Counter(name for name, _ in named)
    return counts, {
        part: pa.RecordBatch.from_pylist([row for name, row in named if name == part], schema)
        for part, schema in STATE["parts"].items()
        if counts[part]
    }
