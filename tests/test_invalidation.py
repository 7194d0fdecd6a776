"""What reruns after an edit, on the real graph: a part of tests/trust/edits.py (`make invalidation` makes them all);
and a cache that fails.
"""

import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import copy_tree
from tests.trust.edits import EDITS, sub
from tests.trust.invalidation import Scene

pytestmark = pytest.mark.slow
HERE = [  # one of each kind, the cheap ones
    "`dpo.beta`",
    "one more iteration",
    "an edited raw row, their number the same",
    "the helper `stages/signals/forward.py`",
    "`trl` in the lock",
    "a policy edited by hand, another deleted",
    "`rank.scorer` to refreshed reward models",
]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return Scene(copy_tree(tmp_path_factory.mktemp("scene")))


@pytest.mark.parametrize("name", HERE)
def test_an_edit_reruns_exactly_what_it_must(scene, name):
    executed, expected, needed, stale = scene.try_edit(EDITS[name])
    assert executed == expected
    assert executed - {"fingerprint"} == needed
    assert not stale


def test_a_reformatted_stage_can_be_recorded_without_running_it(scene):
    sub("stages/pairs/rank.py", "import json\n", "import json as json\n")(scene.clone)
    for command in ("dvc repro fingerprint", "dvc commit -f rank@t0 rank@t1"):
        scene.sh(command)
    assert "Running stage" not in scene.sh("dvc --wait-for-lock repro") and "up to date" in scene.sh("dvc status")
    scene.sh("git reset -q --hard && dvc checkout -q --force")


def test_an_output_that_was_finished_but_not_recorded_can_be_kept(scene):
    """What a kill during DVC's commit leaves, or another dvc command that held the lock."""
    yaml = YAML()
    lock = yaml.load(scene.clone / "dvc.lock")
    known = lock["stages"].pop("dpo@t0")
    yaml.dump(lock, scene.clone / "dvc.lock")
    scene.sh("dvc commit -f dpo@t0")
    assert "Running stage" not in scene.sh("dvc --wait-for-lock repro")
    assert yaml.load(scene.clone / "dvc.lock")["stages"]["dpo@t0"] == known
    scene.sh("git reset -q --hard")


def test_dropping_what_no_file_of_the_workspace_uses_loses_no_result(scene):
    scene.sh("dvc gc -w --force && rm -r models data/candidates && dvc checkout")
    assert "up to date" in scene.sh("dvc status")


def test_an_experiment_reruns_what_it_must_and_leaves_the_workspace_comparable(scene):
    said = scene.sh("dvc exp run -S dpo.beta=0.3")
    assert (
        "Running stage 'dpo@t0'" in said
        and "Running stage 'generate@t0'" not in said
        and "Running stage 'generate@t1'" in said
    )
    assert "0.3" in scene.sh("dvc params diff") and "dpo.beta" in scene.sh("dvc params diff")
    scene.sh("git checkout .")
    scene.sh("dvc checkout")
    assert "up to date" in scene.sh("dvc status")


def test_another_ranker_is_one_value_of_an_experiment(scene):
    said = scene.sh("dvc exp run -S rank.scorer=preference_model -S signals.preference_model=[preference_model]")
    ran = set(re.findall(r"Running stage '(.+)'", said))
    assert {
        "preference_model@preference_model",
        "score_preference_model@t0-preference_model",
        "rank@t0",
        "report",
    } <= ran
    assert not ran & {
        "reward_model@reward_model",
        "sft",
        "generate@t0",
        "score_reward_model@t0-reward_model",
        "respond_first@pi0",
    }
    scene.sh("git checkout . && dvc checkout --force")


@pytest.mark.parametrize(
    ("command", "runs", "spares"),
    [
        ("dvc exp run -S history.keep=all", "history@t1", "reference@t0"),
        ("dvc exp run -S iterations.1.start=pi0", "dpo@t1", "reference@t1"),
        ("dvc exp run -S iterations.1.reference=pi1", "reference@t1", "dpo@t0"),
    ],
)
def test_line_3_of_algorithm_2_is_one_value_of_an_experiment(scene, command, runs, spares):
    said = scene.sh(command)
    skipped = set(re.findall(r"Stage '(.+)' didn't change", said))
    assert runs not in skipped and {spares, "generate@t0", "sft"} <= skipped
    scene.sh("git checkout . && dvc checkout --force")


def test_there_are_edits_of_every_kind():
    assert len(EDITS) >= 25


def test_an_edit_that_finds_nothing_to_edit_is_no_edit(tmp_path):
    (tmp_path / "a").write_text("b", encoding="utf-8")
    with pytest.raises(ValueError, match="a has no 'c'"):
        sub("a", "c", "d")(tmp_path)


@pytest.fixture
def small_cache(tmp_path):
    """A cache on a file system of its own, 64 KiB large; `mount` changes it."""
    cache = tmp_path / "cache"
    cache.mkdir()

    def mount(options: str) -> int:
        return subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(cache)], capture_output=True
        ).returncode

    if mount("size=64k"):
        pytest.skip("this machine lets us mount no file system")
    yield cache, mount
    subprocess.run(["umount", str(cache)], check=True)


@pytest.mark.parametrize(
    ("trouble", "told", "cure"),
    [("remount,size=64k", "No space left", "remount,size=64m"), ("remount,ro", "Read-only", "remount,rw,size=64m")],
)
def test_a_cache_that_is_full_or_read_only_loses_nothing(scene, small_cache, trouble, told, cure):
    cache, mount = small_cache
    scene.sh(f"dvc cache dir --local {cache}")
    (scene.clone / "dvc.lock").unlink()
    mount(trouble)
    with pytest.raises(RuntimeError, match=told):
        scene.sh("dvc --wait-for-lock repro split")
    mount(cure)
    scene.sh("dvc --wait-for-lock repro split")
    assert not scene.stale(scene.oracle()) and "up to date" in scene.sh("dvc status split")
    scene.sh("dvc cache dir --local --unset && git reset -q --hard && dvc checkout -q --force")


def test_the_scene_lies_outside_the_working_tree(scene):
    assert not scene.clone.is_relative_to(Path.cwd())
