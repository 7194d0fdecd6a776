"""The pages tell the truth: every command on them is run, by a test, by CI or by make, word for word up to a `<name>`;
every link leads somewhere.
"""

import re
from pathlib import Path

import pytest

from tests.conftest import sh

PAGES = [Path("README.md"), *sorted(Path("docs").glob("*.md")), Path("data/raw/quickstart/README.md")]
RUNNERS = [*Path("tests").rglob("*.py"), Path("Makefile"), Path(".ci/run")]
COMMAND = re.compile(r"^    ((?:make|dvc|git|python|rm) .+?)(?:\s{2,}#.*)?$", re.M)
SHOWN = re.compile(r"^    \$ (.+?)(?:\s{2,}#.*)?$", re.M)
INLINE = re.compile(r"`((?:make|dvc|python -m stages\.profile) [^`]+?)(?: <.*| \.\.\.)?`")
TYPED = {
    command: page
    for page in PAGES
    for pattern in (COMMAND, SHOWN, INLINE)
    for command in pattern.findall(page.read_text())
}


@pytest.mark.parametrize("command", TYPED)
def test_every_command_on_a_page_is_run_by_something(command):
    text = "\n".join(path.read_text() for path in RUNNERS if path.name != "test_docs.py")
    if command.startswith("make "):
        assert f"\n{command.split()[1]}:" in text
    elif command.startswith("python -m stages.tools.profile"):
        assert command in PROFILES
    else:
        assert command in text, f"{TYPED[command]} tells to type it, and nothing runs it"


PROFILES = [command for command in TYPED if command.startswith("python -m stages.tools.profile")]


@pytest.mark.parametrize("command", PROFILES)
def test_the_profiles_on_the_pages_compose(clone, command):
    done = sh(command, clone)
    assert done.returncode == 0, done.stderr
    assert "profile: params.yaml is now" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target
