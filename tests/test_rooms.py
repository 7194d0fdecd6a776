"""Rooms: who may import whom, and what a folder's first lines say."""

import ast
from pathlib import Path

import pytest

from stages.guard import fingerprint

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = {"chat", "messages", "rows", "shards", "words"}  # modules beside the rooms: everybody's
STAGES = {
    "data": set(),
    "sampling": set(),
    "signals": set(),
    "training": {"signals"},
    "pairs": set(),
    "evaluation": {"data", "signals"},
    "benchmarks": {"data", "sampling", "signals"},
}
"""Room to rooms that it may import. An arrow more is a decision: an edit there reruns what is here."""
AROUND = {
    "guard": {"training"},  # the rules of losses are the losses' own: training/losses.py, which imports nothing
    "tools": {"benchmarks", "evaluation", "guard", "signals", "training"},
}
ALLOWED = STAGES | AROUND
ROOMS = sorted(path.parent.name for path in (ROOT / "stages").glob("*/__init__.py"))


def imported(path: Path) -> set[str]:
    """Rooms and contracts that a file imports from: `signals` for `stages.signals.scorers.judge`."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("stages.")}


def arrows() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {name: set() for name in ROOMS}
    for path in (ROOT / "stages").glob("*/**/*.py"):
        here = path.relative_to(ROOT / "stages").parts[0]
        found[here] |= imported(path) - {here} - CONTRACTS
    return found


def test_rooms_import_only_whom_they_may():
    assert arrows() == ALLOWED, (
        "take an arrow out, or decide for it here; one that is there no more goes from the table"
    )


def test_no_room_is_reached_from_itself():
    def reached(name: str, way: tuple[str, ...] = ()) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way, name))}"
        for other in ALLOWED.get(name, ()):
            reached(other, (*way, name))

    for name in ALLOWED:
        reached(name)


def test_no_stage_imports_the_guard_or_the_tools():
    for name in fingerprint.stage_modules(ROOT):
        closure = {path.relative_to(ROOT / "stages").parts[0] for path in fingerprint.closure(name, ROOT)}
        assert closure and not closure & set(AROUND), name


def test_what_stands_beside_the_rooms_is_a_contract_of_all_and_knows_no_room():
    beside = [path for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__"]
    assert {path.stem for path in beside} == CONTRACTS
    for path in beside:
        assert imported(path) <= CONTRACTS, path


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_s_first_lines_say_what_it_holds_what_it_must_not_and_what_an_edit_reruns(name):
    tree = ast.parse((ROOT / "stages" / name / "__init__.py").read_text(encoding="utf-8"))
    told = (ast.get_docstring(tree) or "").splitlines()
    assert len(tree.body) == 1, "an __init__.py holds its docstring and nothing else"
    assert told[0].endswith(".") and told[1] == ""
    beginnings = [line[:10].rstrip() for line in told[2:] if not line.startswith(" ")]
    assert beginnings == ["Holds", "Must not", "An edit"]
    assert all(len(line) > 10 for line in told[2:])


def test_every_folder_of_modules_is_a_room_or_in_one():
    folders = {path.parent.relative_to(ROOT / "stages").parts[0] for path in (ROOT / "stages").glob("*/**/*.py")}
    assert folders == set(ROOMS) == set(ALLOWED)
