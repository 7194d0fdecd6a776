"""JSON lines, a chunk of them at a time: how files of gigabytes are read, and one that is cut off is noticed."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

CHUNK = 32 * 2**20  # bytes


def chunks(file: Path) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, lines) of a JSONL file, about CHUNK bytes at a time.

    Raises ValueError for a file that is cut off.
    """
    number, last = 1, b"\n"
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            while lines := stream.readlines(CHUNK):
                yield number, lines
                number, last = number + len(lines), lines[-1]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{file}: {error}; the file is cut off or damaged, copy it again") from error
    if not last.endswith(b"\n") and not parsed(last):
        told = f"it has {number - 1:,} lines"
        raise ValueError(f"{file}: the last line has no end, the file is cut off; copy it again ({told})")


def parsed(line: bytes) -> dict | None:
    """One line as an object; None where it is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def opening(lines: list[bytes]) -> dict:
    """Every field of these objects, with its first value that is neither null nor empty."""
    found: dict = {}
    for record in filter(None, map(parsed, lines)):
        found |= {name: value for name, value in record.items() if found.get(name) in (None, [], "")}
    return found
