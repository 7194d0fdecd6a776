"""A set of your own: preferences in one of the ecosystem's forms, told apart by their fields (stages/ecosystem.py lists them).

Reads   raw
Writes  preferences, metrics: see stages/form.py
"""

from functools import partial
from pathlib import Path
from typing import Any

from stages import ecosystem, form, releases


def main(params: Any, name: str, raw: Path, *, preferences: Path, metrics: Path) -> None:
    fields = ecosystem.declared(releases.peek(raw), raw)
    release = releases.Release("own", fields)
    form.prepare(release, releases.batches(release, raw), partial(ecosystem.pairs, fields=fields, name=name), name, raw, preferences, metrics)
