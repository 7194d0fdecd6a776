"""Raw data that is too large for git goes to DVC, where it stays."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, sh

PIPELINE = """
stages:
  prepare:
    cmd: cp data/raw/mine.jsonl data/made.jsonl
    deps: [data/raw/mine.jsonl]
    outs: [data/made.jsonl]
"""
IDENTITY = "git config user.name t && git config user.email t@t"


def run(command: str, folder: Path) -> str:
    done = sh(command, folder)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A pipeline of one stage under this project's ignore files, with a folder as its remote."""
    folder = tmp_path / "mine"
    (folder / "data/raw").mkdir(parents=True)
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (folder / "data/raw/small.jsonl").write_text("in git\n", encoding="utf-8")
    (folder / "data/raw/mine.jsonl").write_text("many rows\n", encoding="utf-8")
    run(f"git init -q && {IDENTITY} && dvc init -q && dvc remote add -q --default store {tmp_path}/store", folder)
    return folder


def test_large_raw_data_are_pushed_survive_garbage_collection_and_reproduce_in_a_clone(repository):
    run("dvc add data/raw/mine.jsonl && git add data/raw/mine.jsonl.dvc data/raw/.gitignore", repository)
    run("git add -A && git commit -qm raw", repository)
    tracked = run("git ls-files data", repository).split()
    assert tracked == ["data/raw/.gitignore", "data/raw/mine.jsonl.dvc", "data/raw/small.jsonl"]
    run("dvc repro -q && git add -A && git commit -qm made && dvc push -q", repository)
    run("dvc gc -w -f -q", repository)
    assert "up to date" in run("dvc status", repository)
    run("rm data/raw/mine.jsonl && dvc checkout -q", repository)
    assert (repository / "data/raw/mine.jsonl").read_text(encoding="utf-8") == "many rows\n"

    clone = repository.parent / "clone"
    run(f"git clone -q {repository} {clone} && cd {clone} && {IDENTITY} && dvc pull -q", repository.parent)
    assert (clone / "data/made.jsonl").read_text(encoding="utf-8") == "many rows\n"
    run("rm data/made.jsonl && dvc repro -q -f", clone)
    assert "up to date" in run("dvc status", clone) and not run("git status --porcelain", clone)


def test_git_sees_raw_data_and_nothing_else_under_data(repository):
    (repository / "data/filtered").mkdir()
    (repository / "data/filtered/train.parquet").write_text("made", encoding="utf-8")
    seen = run("git status --porcelain --untracked-files=all data", repository)
    assert {line.split()[1] for line in seen.splitlines()} == {"data/raw/mine.jsonl", "data/raw/small.jsonl"}
