"""A set of your own: preferences in one of the ecosystem's forms, told apart by their fields (stages/data/ecosystem.py
lists them).

Reads   raw
Writes  preferences, metrics: see stages/data/pair_format.py
"""

from functools import partial
from pathlib import Path
from typing import Any

from stages.data import ecosystem, pair_format, releases


def main(params: Any, name: str, raw: Path, *, preferences: Path, metrics: Path) -> None:
    fields = ecosystem.declared(releases.peek(raw), raw)
    release = releases.Release("own", fields)
    pair_format.prepare(
        release,
        releases.batches(release, raw),
        partial(ecosystem.pairs, fields=fields, name=name),
        name,
        raw,
        preferences,
        metrics,
    )
