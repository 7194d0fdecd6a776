"""A benchmark's files as people lay them out: in a folder `<name>.jsonl`, or packed as .jsonl.gz, one object a line; or
`<name>.json`, which pins a hub's data set (stages/data/releases.py).
"""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.data import releases

ENDINGS = (".jsonl", ".jsonl.gz", ".json")


def found(folder: Path, name: str) -> Path | None:
    """The file of this name; None where it is not there. Raises ValueError where there are two."""
    there = [folder / f"{name}{ending}" for ending in ENDINGS if (folder / f"{name}{ending}").exists()]
    if len(there) > 1:
        raise ValueError(f"{folder}: both {there[0].name} and {there[1].name} are there; keep one")
    return there[0] if there else None


def content(file: Path) -> str:
    """The text of a file, packed or not. Raises ValueError for one that cannot be unpacked or is no UTF-8."""
    try:
        stored = file.read_bytes()
        return (gzip.decompress(stored) if file.suffix == ".gz" else stored).decode("utf-8-sig")
    except (EOFError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: {error}; the file is cut off or of another kind, bring it again") from error


def rows(folder: Path, name: str) -> list[tuple[int, dict[str, Any]]]:
    """The file's objects, or those of the hub's data set that it pins, with their lines' numbers; none where there is
    no file. Raises ValueError for a line that is no object.
    """
    file = found(folder, name)
    if file is None:
        return []
    if file.suffix == ".json":
        tables = releases.hub_batches(releases.Release(str(folder), pa.schema([])), file)
        return list(enumerate((row for table in tables for row in table.to_pylist()), 1))
    return lines(file)


def lines(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """Objects of JSON lines. They end at a line feed alone: published strings hold U+2028, where `splitlines` would
    cut them.
    """
    read = []
    for number, line in enumerate(content(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            read.append((number, dict(json.loads(line))))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}:{number}: {line[:60]!r} is no JSON object; mend it") from error
    return read


def shaped(folder: Path, name: str, form: Callable[[dict], Any], wanted: str) -> list[Any]:
    """What `form` makes of every object. Raises ValueError with the line for one that it does not take; `wanted` says
    what that would be.
    """
    made = []
    for number, row in rows(folder, name):
        try:
            made.append(form(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            told = f"a field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{folder}/{name}.jsonl:{number}: {told}, {wanted}; mend the line") from error
    return made


def check_once(folder: Path, names: list[tuple[str, str]]) -> None:
    """Raise ValueError where there is no question, or one stands there twice; `names`: what is told of a question, and
    what else tells it from others.
    """
    if not names:
        raise ValueError(f"{folder}: no questions.jsonl, or an empty one; put the questions there")
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    if twice is not None:
        raise ValueError(f"{folder}/questions.jsonl: {twice[0]!r:.80} stands there twice; ask it once")
