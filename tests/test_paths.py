"""What params.yaml puts into a command arrives there as one word, unchanged, or is refused before anything runs."""

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.guard.params import ParamsError, check
from tests.conftest import copy_tree, sh

ODD = """my set it's (a;b) a&b|c <d> *?[0] {a,b} #1 ~ !x a=b,c:d @ 50% ^ äπ"""
"""All that is odd in names of files as people have them, and that double quotes protect."""
REFUSED = ["a$b", "a$(id)", "${seed}", 'a"b', "a`id`", "a\\b", "a\nb", "a\tb", "a\x7fb", "-a", "--raw", "", " "]
"""What a shell reads as something else even between double quotes, or the guard as an option."""
QUICKSTART = YAML(typ="safe", pure=True).load(Path("params.yaml").read_text(encoding="utf-8"))
OWN = {key: value for key, value in QUICKSTART["mix"]["quickstart"].items() if key != "after"}
ALL = QUICKSTART | {
    "signals": {name: ["all" if name == "side_by_side" else name] for name in QUICKSTART["signals"]},
    "pretrained": QUICKSTART["pretrained"] | {"model": "own"},
    "offline": QUICKSTART["offline"] | {"train": "data/offline/mixed.parquet", "set": {"mine": OWN}},
}
"""The quickstart with all in use that stands on demand, so that every command of dvc.yaml is a stage's."""


def places(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all texts in a tree of params."""
    if isinstance(tree, str):
        yield path
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else []
    for key, part in parts:
        yield from places(part, (*path, key))


def put(tree: Any, path: tuple, value: str) -> Any:
    """A copy of the tree with another text in one place."""
    changed = node = copy.deepcopy(tree)
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


def allowed(tree: Any) -> bool:
    try:
        check(tree, "params.yaml")
    except ParamsError:
        return False
    return True


FREE = {f"plain{k}": path for k, path in enumerate(places(ALL)) if allowed(put(ALL, path, f"plain{k}"))}
"""Places that take any name at all, by a name of their own."""


class Commands:
    """The commands of the graph, in a clone."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone

    def words(self, odd: str) -> dict[str, list[str]]:
        """Every stage's command, word by word, with `odd` before the name of each free place."""
        tree = ALL
        for name, path in FREE.items():
            changed = put(tree, path, odd + name)
            tree = changed if allowed(changed) else put(tree, path, name)
        with (self.clone / "params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(tree, file)
        return {stage.addressing: handed_on(stage.cmd) for stage in Repo(str(self.clone)).index.stages if stage.cmd}


def handed_on(command: Any) -> list[str]:
    """The words that a shell makes of a line."""
    shown = subprocess.run(["sh", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True, encoding="utf-8")
    return shown.stdout.split("\0")


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Commands:
    return Commands(copy_tree(tmp_path_factory.mktemp("graph")))


@pytest.fixture(scope="module")
def plain(commands) -> dict[str, list[str]]:
    return commands.words("")


def test_an_odd_name_is_one_word_of_each_command_and_changes_no_other(commands, plain):
    wanted = {stage: [ODD + word if word in FREE else word for word in told] for stage, told in plain.items()}
    assert commands.words(ODD) == wanted


def test_every_name_that_reaches_a_command_is_refused_if_no_quotes_would_save_it(plain):
    reach = {word for told in plain.values() for word in told} & set(FREE)
    assert {FREE[name][0] for name in reach} >= {"prompts", "phrases", "mix", "offline", "judge"}
    wrong = [(FREE[name], value) for name in reach for value in REFUSED if allowed(put(ALL, FREE[name], value))]
    assert not wrong


def test_a_part_of_a_word_is_never_a_free_name(plain):
    """As in `models/<name>`, where quotes protect but `../` would lead elsewhere."""
    longer = {word for told in plain.values() for word in told if word not in FREE and "plain" in word}
    assert not longer


@pytest.mark.parametrize("name", ["my set", "a$b", "../up", "A", ""])
def test_a_set_is_named_by_a_word(name):
    assert not allowed(ALL | {"mix": {name: ALL["mix"]["quickstart"]}, "mixed": name})
    assert not allowed(ALL | {"offline": ALL["offline"] | {"set": {name: OWN}}})


@pytest.mark.parametrize("path", [("prompts", "raw"), ("mix", "quickstart", "raw"), ("judge", "template")])
def test_the_names_that_files_have_are_allowed(path):
    assert allowed(put(QUICKSTART, path, ODD))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a$b.jsonl", "prompts.raw = 'a$b.jsonl': holds '$', which a shell does not hand on; rename the file"),
        ('a"b.jsonl', "holds '\"', which a shell does not hand on"),
        ("a  b.jsonl", "holds two spaces in a row, which dvc.lock does not always keep; rename the file"),
        ("a`b.jsonl", "holds '`', which a shell does not hand on"),
        ("a\\b.jsonl", r"holds '\\', which a shell does not hand on"),
        ("a\nb.jsonl", r"prompts.raw = 'a\nb.jsonl': holds '\n', which a shell does not hand on"),
        ("-a.jsonl", "begins with -, as an option does; write ./-a.jsonl"),
        (" ", "is empty; name a file or a folder"),
    ],
)
def test_a_name_that_no_quotes_would_save_is_refused_with_the_character_and_the_remedy(name, told):
    with pytest.raises(ParamsError) as caught:
        check(put(QUICKSTART, ("prompts", "raw"), name), "params.yaml")
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_raw_file_with_a_space_and_an_apostrophe_in_its_path_gives_the_same_rows(clone):
    """The whole way: params, DVC, the shell, the guard, the stage, and back into dvc.lock."""
    odd = clone / "data/raw/it's mine/my set.jsonl"
    odd.parent.mkdir()
    (clone / "data/raw/quickstart/annotations.jsonl").rename(odd)
    with (clone / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(put(QUICKSTART, ("mix", "quickstart", "raw"), str(odd.relative_to(clone))), file)
    done = sh("dvc --wait-for-lock repro prepare@quickstart", clone)
    assert done.returncode == 0 and "Running stage 'prepare@quickstart'" in done.stdout, done.stderr
    told = json.loads((clone / "data/preferences/quickstart.json").read_text(encoding="utf-8"))
    assert (told["rows_in"], told["rows_out"], told["drops"]) == (686, 685, {"not_json": 1})
    assert "up to date" in sh("dvc status prepare@quickstart", clone).stdout
