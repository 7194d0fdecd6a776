"""A benchmark's files as people lay them out: in a folder `<name>.jsonl`, or packed as .jsonl.gz, one object a line; or
`<name>.json`, which pins a hub's data set (stages/data/releases.py).
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.data import jsonl, releases

ENDINGS = (".jsonl", ".jsonl.gz", ".json")


def found(folder: Path, name: str) -> Path | None:
    """The file of this name; None where it is not there. Raises ValueError where there are two."""
    there = [folder / f"{name}{ending}" for ending in ENDINGS if (folder / f"{name}{ending}").exists()]
    if len(there) > 1:
        raise ValueError(f"{folder}: both {there[0].name} and {there[1].name} are there; keep one")
    return there[0] if there else None


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
    """Objects of JSON lines. Raises ValueError for a line that is none, and for a file that is cut off."""
    read = []
    for first, chunk in jsonl.chunks(file):
        for number, line in ((number, line) for number, line in enumerate(chunk, first) if line.strip()):
            row = jsonl.parsed(line)
            if row is None:
                raise ValueError(f"{file}:{number}: {line[:60]!r} is no JSON object; mend it")
            read.append((number, row))
    return read


def chosen(questions: list[dict], number: int | None, name: Callable[[dict], str]) -> list[dict]:
    """So many questions, by their hashed names, which new ones do not disturb; in the file's order. All for null."""
    kept = set(sorted(map(name, questions))[:number])
    return [question for question in questions if name(question) in kept]


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
