"""A folder of parquet files that together are one table, cut by rows and never through a prompt's own.

`generate` writes such a folder; a scorer writes one with the same file names; DVC stores and moves it file by file.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def cut(rows: list[dict], most: int, by: Sequence[str] = ("id",)) -> list[list[dict]]:
    """Parts of at most `most` rows, in order, none of which divides rows that agree in `by`.

    Rows that agree and are more than `most` are a part of their own; without rows there is one part, which is empty.
    """
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    parts: list[list[dict]] = [[]]
    for group in groups.values():
        if parts[-1] and len(parts[-1]) + len(group) > most:
            parts.append([])
        parts[-1] += group
    return parts


def files(folder: Path) -> list[Path]:
    """The folder's shards by name. Raises ValueError where there is none."""
    found = sorted(folder.glob("*.parquet"))
    if not found:
        raise ValueError(f"{folder} holds no shard; run `rm -rf {folder}` and `dvc --wait-for-lock repro`")
    return found


def read(folder: Path, columns: list[str] | None = None) -> list[dict]:
    """The rows of all shards."""
    return [row for file in files(folder) for row in pq.read_table(file, columns=columns).to_pylist()]


def write(folder: Path, rows: list[dict], schema: pa.Schema, most: int) -> int:
    """Cut rows into shards of at most `most`; how many there are."""
    folder.mkdir()
    parts = cut(rows, most)
    for number, part in enumerate(parts):
        pq.write_table(pa.Table.from_pylist(part, schema), folder / f"shard-{number:05d}.parquet")
    return len(parts)


def widened(table: pa.Table, found: list[dict], columns: pa.Schema) -> pa.Table:
    """The table with more columns, which `found` holds in the table's order."""
    for column in columns:
        values = pa.array([row[column.name] for row in found], column.type)
        table = table.append_column(column, values)
    return table
