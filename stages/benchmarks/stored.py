"""A benchmark's files as people lay them out: `<name>.jsonl` in a folder, or packed as .jsonl.gz; one object a line."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any


def content(folder: Path, name: str) -> str:
    """The text of a file, packed or not; none where it is not there.

    Raises ValueError where both are, and for one that cannot be unpacked or is no UTF-8.
    """
    packed, plain = folder / f"{name}.jsonl.gz", folder / f"{name}.jsonl"
    there = [path for path in (packed, plain) if path.exists()]
    if len(there) == 2:
        raise ValueError(f"{folder}: both {plain.name} and {packed.name} are there; keep one")
    try:
        return "".join(read(path) for path in there)
    except (EOFError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{there[0]}: {error}; the file is cut off or of another kind, bring it again") from error


def read(path: Path) -> str:
    stored = path.read_bytes()
    return (gzip.decompress(stored) if path.suffix == ".gz" else stored).decode("utf-8-sig")


def rows(folder: Path, name: str) -> list[tuple[int, dict[str, Any]]]:
    """The file's objects with their lines' numbers. Raises ValueError for a line that is none.

    Lines end at a line feed alone: published strings hold U+2028, where `splitlines` would cut them.
    """
    found = []
    for number, line in enumerate(content(folder, name).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append((number, dict(json.loads(line))))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder}/{name}.jsonl:{number}: {line[:60]!r} is no JSON object; mend it") from error
    return found


def shaped(folder: Path, name: str, form: Callable[[dict], Any], wanted: str) -> list[Any]:
    """What `form` makes of every object. Raises ValueError with the line for one that it does not take; `wanted` says
    what that would be.
    """
    found = []
    for number, row in rows(folder, name):
        try:
            found.append(form(row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            told = f"a field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{folder}/{name}.jsonl:{number}: {told}, {wanted}; mend the line") from error
    return found


def check_once(folder: Path, names: list[tuple[str, str]]) -> None:
    """Raise ValueError where there is no question, or one stands there twice; `names`: what is told of a question, and
    what else tells it from others.
    """
    if not names:
        raise ValueError(f"{folder}: no questions.jsonl, or an empty one; put the questions there")
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    if twice is not None:
        raise ValueError(f"{folder}/questions.jsonl: {twice[0]!r:.80} stands there twice; ask it once")
