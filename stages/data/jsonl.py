"""JSON lines, a chunk of them at a time: how files of gigabytes are read, and one that is cut off is noticed."""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

CHUNK = 32 * 2**20  # bytes
OTHER_ENCODINGS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16", codecs.BOM_UTF32_BE: "UTF-32"}


def chunks(file: Path) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, lines) of a JSONL file, about CHUNK bytes at a time.

    Raises ValueError for a file that is cut off, or in another encoding than UTF-8.
    """
    number, last = 1, b"\n"
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            while lines := stream.readlines(CHUNK):
                check_encoding(file, lines[0] if number == 1 else b"")
                yield number, lines
                number, last = number + len(lines), lines[-1]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{file}: {error}; the file is cut off or damaged, copy it again") from error
    if not last.endswith(b"\n") and not parsed(last):
        told = f"it has {number - 1:,} lines"
        raise ValueError(f"{file}: the last line has no end, the file is cut off; copy it again ({told})")


def check_encoding(file: Path, begins: bytes) -> None:
    """Raise ValueError for a file that begins as another encoding does."""
    found = next((name for mark, name in OTHER_ENCODINGS.items() if begins.startswith(mark)), None)
    if found or b"\0" in begins[:4]:
        name = found or "UTF-16"
        raise ValueError(f"{file}: is {name}, and JSON lines are UTF-8; convert it: iconv -f {name} -t UTF-8 {file}")


def parsed(line: bytes) -> dict | None:
    """One line as an object; None where it is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def can_be_written(record: dict) -> bool:
    """Whether every text of it is Unicode: JSON may write half of a surrogate pair, which no file can hold."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def opening(lines: list[bytes]) -> dict:
    """Every field of these objects, with its first value that is neither null nor empty."""
    found: dict = {}
    for record in filter(can_be_written, filter(None, map(parsed, lines))):
        found |= {name: value for name, value in record.items() if found.get(name) in (None, [], "")}
    return found
