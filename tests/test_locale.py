"""Another machine's locale changes no byte: text is UTF-8 and a decimal point a point, whatever the terminal speaks."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

OPENS = {"open", "read_text", "write_text"}
PROBE = """
import locale
from pathlib import Path

def main(params, source: Path, *, out: Path) -> None:
    locale.setlocale(locale.LC_ALL, "")
    text = source.read_text()  # as a library would, without an encoding
    print(f"probe: {text}, {params.dpo.beta}")
    out.write_text(f"{text} {params.dpo.beta} {locale.localeconv()['decimal_point']}")
"""
FINGERPRINT = """
import locale
from pathlib import Path
from stages.guard import fingerprint

assert locale.getpreferredencoding(False).lower() not in ("utf-8", "utf8")
fingerprint.main(None, Path("stages"), Path("requirements.lock"), keys=Path("code.lock.yaml"))
"""


@pytest.fixture(params=["ASCII", "Latin-1, with a decimal comma"])
def environment(request, tmp_path_factory) -> dict[str, str]:
    """A terminal that does not speak UTF-8, and Python told not to mend it."""
    plain = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    if request.param == "ASCII":
        return plain
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is None:
        pytest.skip("needs localedef, to make a Latin-1 locale")
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder / "de_DE"], capture_output=True)
    if made.returncode:
        pytest.skip(f"needs the sources of de_DE: {made.stderr.decode(errors='replace').strip()}")
    return plain | {"LOCPATH": str(folder), "LC_ALL": "de_DE"}


def python(*words: str, folder: Path, env: dict[str, str]) -> str:
    """What a program of ours prints, as the bytes of UTF-8 that it should print."""
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


def test_the_keys_are_the_same_in_every_locale(clone, environment):
    with (clone / "stages/pairs/rank.py").open("a", encoding="utf-8") as file:
        file.write('\nFIRST_POLICY = "π0"\n')
    keys = []
    for env in (os.environ | {"PYTHONUTF8": "1"}, environment):
        check = FINGERPRINT if env is environment else FINGERPRINT.replace("assert ", "True or ")
        python("-c", check, folder=clone, env=env)
        keys.append((clone / "code.lock.yaml").read_bytes())
    assert keys[0] == keys[1]


def test_a_stage_reads_prints_and_writes_pi_in_every_locale(clone, environment):
    (clone / "stages/probe.py").write_text(PROBE, encoding="utf-8")
    (clone / "source").write_text("log π − log π0", encoding="utf-8")
    fingerprint = "guard.fingerprint --code stages --packages requirements.lock --keys code.lock.yaml"
    python("-m", "stages.guard.run", *fingerprint.split(), folder=clone, env=environment)
    words = ("-m", "stages.guard.run", "probe", "--source", "source", "--out", "out")
    told = python(*words, folder=clone, env=environment)
    comma = "," if "LOCPATH" in environment else "."
    assert told == "probe: log π − log π0, 0.1\n"
    assert (clone / "out").read_text(encoding="utf-8") == f"log π − log π0 0.1 {comma}"


@pytest.mark.slow
def test_the_report_has_the_same_bytes_in_every_locale(smoke, tmp_path, environment):
    folder = Path(shutil.copytree(smoke, tmp_path / "there", symlinks=True))
    written = [folder / "metrics/table.md", folder / "metrics/report.html"]
    before = [path.read_bytes() for path in written]
    assert "π" in before[0].decode()
    python("-m", "dvc", "repro", "--force", "--single-item", "report", folder=folder, env=environment)
    assert [path.read_bytes() for path in written] == before


def unsaid(path: Path) -> list[str]:
    """Calls in a file that open text in whatever encoding the locale has."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return [f"{path}:{call.lineno}: {ast.unparse(call)[:80]}" for call in calls if opens_text(call) and not told(call)]


def opens_text(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    if called == "gzip.open":  # bytes, unless it is told otherwise
        return any(isinstance(word, ast.Constant) and "t" in str(word.value) for word in call.args[1:])
    return called.split(".")[-1] in OPENS and called != "os.open"


def told(call: ast.Call) -> bool:
    """The encoding is said, or the mode is one of bytes."""
    words = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
    modes = [word.value for word in words if isinstance(word, ast.Constant)] if is_open(call) else []
    return any(word.arg == "encoding" for word in call.keywords) or any(mode in ("rb", "wb", "ab") for mode in modes)


def is_open(call: ast.Call) -> bool:
    return ast.unparse(call.func).split(".")[-1] == "open"


@pytest.mark.parametrize("folder", ["stages", "tests/trust", "data/raw"])
def test_no_file_is_opened_without_an_encoding(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files and [line for path in files for line in unsaid(path)] == []


@pytest.mark.parametrize(
    ("call", "is_told"),
    [
        ("path.read_text()", False),
        ('path.read_text(encoding="utf-8")', True),
        ('path.write_text("b")', False),
        ('open(path, "w")', False),
        ('open(path, "rb")', True),
        ('path.open("ab")', True),
        ('path.open(mode="wb")', True),
        ('gzip.open(path, "rt")', False),
        ("gzip.open(path)", True),
    ],
)
def test_the_check_itself_knows_text_from_bytes(tmp_path, call, is_told):
    (tmp_path / "a.py").write_text(call, encoding="utf-8")
    assert (unsaid(tmp_path / "a.py") == []) is is_told
