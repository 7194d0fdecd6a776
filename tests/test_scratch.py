"""What must survive a killed run is kept where the next run finds it, an experiment's too."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from stages.guard import scratch
from stages.guard.params import load
from tests.conftest import FINGERPRINT, ROOT, copy_tree, sh, wait_for

TRAINER = """
import os, time
from pathlib import Path

DISTRIBUTED = True

def main(params, source: Path, *, out: Path) -> None:
    checkpoint = Path(os.environ["STAGE_SCRATCH"], "checkpoint")
    if not checkpoint.exists():
        checkpoint.write_text("half")
        Path(os.environ["STAGE_HOME"], "asked").write_text("an answer that was paid for")
        time.sleep(60)
    print(f"dpo: going on, with {Path(os.environ['STAGE_HOME'], 'asked').read_text()}")
    out.write_text("whole")
"""
PIPELINE = (
    f"stages:\n{FINGERPRINT}"
    + """\
  dpo:
    cmd: python -m stages.guard.run probe.dpo --source README.md --out policy.txt
    params: [dpo.beta, code.lock.yaml: [probe_dpo]]
    deps: [README.md]
    outs: [policy.txt]
"""
)


@pytest.fixture
def training(clone: Path) -> Path:
    """A repository whose only stage but the fingerprint trains for a minute, unless a checkpoint is there."""
    (clone / "stages/probe").mkdir()
    (clone / "stages/probe/dpo.py").write_text(TRAINER, encoding="utf-8")
    (clone / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (clone / "dvc.lock").unlink()
    commands = "rm -rf signals && echo /policy.txt >> .gitignore && dvc repro fingerprint"
    done = sh(f"{commands} && git add -A && git commit -qm probe", clone)
    assert done.returncode == 0, done.stderr
    return clone


@pytest.mark.parametrize("how", ["--temp", ""], ids=["in a temporary folder", "in the workspace"])
def test_an_experiment_that_was_killed_goes_on_from_its_checkpoint(training, how):
    command = f"dvc exp run {how} -S dpo.beta=0.3"
    first = subprocess.Popen(command.split(), cwd=training, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: checkpoints(training))
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    wait_for(lambda: is_free(checkpoints(training)[0].parent))
    done = sh(command, training)
    assert "dpo: going on, with an answer that was paid for" in done.stdout, done.stdout + done.stderr
    assert not checkpoints(training)


def checkpoints(repository: Path) -> list[Path]:
    return list((repository / ".scratch").rglob("checkpoint"))


def is_free(folder: Path) -> bool:
    """No process trains there: the watchdog has ended what the killed dvc had started."""
    with scratch.held(folder) as free:
        return free


@pytest.mark.parametrize(
    ("root", "home"),
    [
        ("/r/repo", "/r/repo/.scratch"),
        ("/r/repo/.dvc/tmp/exps/tmpabc", "/r/repo/.scratch"),
        ("/r/repo/.dvc/tmp/exps/standalone/tmpabc", "/r/repo/.scratch"),
        ("/r/repo/.dvc/tmp/exps/tmpabc/below", "/r/repo/.scratch"),
        ("/r/exps/repo", "/r/exps/repo/.scratch"),
    ],
)
def test_the_home_is_that_of_the_repository_that_a_person_works_in(root, home):
    assert scratch.home(Path(root)) == Path(home)


def entered(root: Path, beta: float = 0.1):
    """The scratch folder of one run of dpo in a repository, or in an experiment of it."""
    params = load(ROOT / "params.yaml")
    changed = params.model_copy(update={"dpo": params.dpo.model_copy(update={"beta": beta})})
    return scratch.folder("training.dpo", {"history": root / "README.md"}, changed, Path("models/pi1"), root)


def killed(root: Path, beta: float) -> Path:
    """What a run leaves that ended in its middle."""
    with pytest.raises(RuntimeError), entered(root, beta):
        folder = Path(os.environ["STAGE_SCRATCH"])
        raise RuntimeError("as if killed")
    assert "STAGE_SCRATCH" not in os.environ
    return folder


def test_in_the_workspace_other_settings_end_what_was_begun(clone):
    begun = killed(clone, 0.1)
    assert begun.is_dir() and clone / ".scratch/training" in begun.parents
    with entered(clone, 0.2):
        assert not begun.exists() and os.environ["STAGE_SCRATCH"] != str(begun)
    assert not begun.parent.exists()


def test_experiments_leave_each_other_s_checkpoints_alone_for_a_week(tmp_path):
    root = copy_tree(tmp_path / "repo/.dvc/tmp/exps/standalone/tmpabc")
    begun = killed(root, 0.1)
    assert tmp_path / "repo/.scratch/experiments" in begun.parents
    with entered(root, 0.2):
        assert begun.is_dir()
    eight_days_ago = time.time() - 8 * 24 * 3600
    os.utime(begun, (eight_days_ago, eight_days_ago))
    with entered(root, 0.2):
        assert not begun.exists()


def test_of_two_experiments_that_train_the_same_one_keeps_no_checkpoints(tmp_path):
    root = copy_tree(tmp_path / "repo/.dvc/tmp/exps/tmpabc")
    with entered(root):
        first = os.environ.pop("STAGE_SCRATCH")
        with entered(root):
            assert "STAGE_SCRATCH" not in os.environ
        assert Path(first).is_dir()
        os.environ["STAGE_SCRATCH"] = first
    assert not Path(first).exists()


def test_a_scratch_folder_belongs_to_one_run_and_a_runtime_value_that_changes_no_result_keeps_it(tmp_path):
    (tmp_path / "input").write_text("one")
    params = load(ROOT / "params.yaml")

    def named(**runtime: float | str) -> str:
        changed = params.model_copy(update={"runtime": params.runtime.model_copy(update=runtime)})
        return scratch.name("training.dpo", {"history": tmp_path / "input"}, changed, ROOT)

    first = named()
    assert first == named(checkpoint_minutes=7.0, judge_url="http://127.0.0.1:1", forward_batch_tokens=8)
    layouts = {named(micro_batch_rows=1), named(processes=2), named(threads=1), named(gradient_checkpointing=True)}
    (tmp_path / "input").write_text("two")
    assert len({first, *layouts, named()}) == 6
