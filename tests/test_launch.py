"""A training over several nodes: two torchruns meet, started by a real Slurm where there is one, and by srun or ssh,
whose places two scripts here take.
"""

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.guard import launch
from stages.guard.refusal import Refusal
from tests import slurm
from tests.conftest import KEYS, guard, sh

STAGE = """
import json, os, time
from datetime import timedelta
from pathlib import Path
from typing import Any

DISTRIBUTED = True

def main(params: Any, source: Path, *, out: Path) -> None:
    from torch import distributed

    distributed.init_process_group("gloo", timeout=timedelta(seconds=3))
    told = [None] * 2
    distributed.all_gather_object(told, [os.environ[name] for name in ("RANK", "GROUP_RANK", "LOCAL_RANK")])
    if source.read_text() == "fail" and os.environ["RANK"] == "1":
        raise ValueError("row 7 is bad; mend it")
    if source.read_text() == "hang" and os.environ["RANK"] == "1":
        time.sleep(60)
    if os.environ["RANK"] == "0":
        out.write_text(json.dumps([told, os.environ["ACCELERATE_USE_DEEPSPEED"]]))
    distributed.barrier()
"""
"""A stage `dpo`, named as a section of params.yaml is, that tells who took part."""
SRUN = """#!{python}
import itertools, subprocess, sys
options = list(itertools.takewhile(lambda word: word.startswith("-"), sys.argv[1:]))
words = sys.argv[1 + len(options) :]
tasks = int(next(word for word in options if word.startswith("--ntasks=")).partition("=")[2])
running = [subprocess.Popen(words) for _ in range(tasks)]
sys.exit(max(abs(process.wait()) for process in running))
"""
SSH = """#!{python}
import subprocess, sys
assert sys.argv[1:3] == ["-o", "BatchMode=yes"] and sys.argv[3] == "other"
sys.exit(subprocess.run(["sh", "-c", sys.argv[4]], env={{"PATH": "/usr/bin:/bin"}}).returncode)
"""
TRAIN = ("dpo", "--source", "source", "--out", "out/a.txt")


@pytest.fixture
def nodes(clone: Path) -> tuple[Path, dict[str, str]]:
    """A clone with a training of two processes on two nodes, and the environment with srun and ssh."""
    (clone / "stages/dpo.py").write_text(STAGE)
    params = (clone / "params.yaml").read_text(encoding="utf-8")
    for old, new in (("processes: 1 ", "processes: 2 "), ("nodes: 1 ", "nodes: 2 ")):
        assert old in params
        params = params.replace(old, new, 1)
    (clone / "params.yaml").write_text(params, encoding="utf-8")
    guard(clone, *KEYS)
    (clone / "source").write_text("pass")
    (clone / "hosts").write_text(f"{socket.gethostname()}\nother\n")
    (clone / "bin").mkdir()
    for name, text in (("srun", SRUN), ("ssh", SSH)):
        (clone / "bin" / name).write_text(text.format(python=sys.executable))
        (clone / "bin" / name).chmod(0o755)
    return clone, {"PATH": f"{clone / 'bin'}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def real_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    if not slurm.is_here():
        pytest.skip("no Slurm on this machine: apt-get install slurm-wlm munge")
    with slurm.running(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


def in_a_job(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """The training within an allocation of two nodes."""
    words = f"salloc --quiet --nodes=2 {sys.executable} -m stages.guard.run {' '.join(TRAIN)}"
    return sh(words, folder, env=os.environ | environment)


def test_a_job_of_slurm_trains_on_its_two_nodes(nodes, real_slurm):
    folder, _ = nodes
    done = in_a_job(folder, real_slurm)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "out/a.txt").read_text())[0] == [["0", "0", "0"], ["1", "1", "0"]]


def test_a_process_that_fails_on_another_node_of_slurm_s_ends_the_training_with_its_own_line(nodes, real_slurm):
    folder, _ = nodes
    (folder / "source").write_text("fail")
    done = in_a_job(folder, real_slurm)
    assert "dpo: row 7 is bad; mend it" in done.stderr and not (folder / "out/a.txt").exists()
    assert re.search(r"^dpo: a training process ended with \d+; its own message stands above$", done.stderr, re.M)


@pytest.mark.slow
def test_the_script_of_the_docs_runs_the_pipeline_on_two_nodes_of_slurm(own_smoke, real_slurm, tmp_path):
    page = (own_smoke / "docs/scale.md").read_text(encoding="utf-8")
    script = textwrap.dedent(page[page.index("    #!/bin/bash") : page.index("Without Slurm")])
    script = script.replace(" --gpus-per-node=8", "").replace("6379", str(launch.free_port()))
    (own_smoke / "job.sh").write_text(script, encoding="utf-8")
    settings = "dpo.beta=0.3 runtime.processes=2 runtime.nodes=2 runtime.workers=2"
    assert sh(f"python -m stages.tools.profile smoke {settings}", own_smoke).returncode == 0
    done = sh("sbatch --wait --output=job.log job.sh", own_smoke, env=os.environ | real_slurm | {"HOME": str(tmp_path)})
    log = (own_smoke / "job.log").read_text(encoding="utf-8")
    assert done.returncode == 0 and log.count("Ray runtime started") == 2, log[-3000:]
    assert "Running stage 'generate@t1'" in log and "Running stage 'dpo@t1'" in log
    assert "up to date" in sh("dvc status", own_smoke).stdout


SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}


@pytest.mark.parametrize("way", ["srun", "ssh"])
def test_two_nodes_train_together(nodes, way):
    folder, found = nodes
    found |= SLURM if way == "srun" else {"STAGE_HOSTS": "hosts"}
    done = guard(folder, *TRAIN, **found)
    assert done.returncode == 0, done.stderr
    told, zero = json.loads((folder / "out/a.txt").read_text())
    assert told == [["0", "0", "0"], ["1", "1", "0"]] and zero == "false"


def test_a_process_that_fails_on_another_node_ends_the_training_with_its_own_line(nodes):
    folder, found = nodes
    (folder / "source").write_text("fail")
    done = guard(folder, *TRAIN, **found, STAGE_HOSTS="hosts")
    assert "dpo: row 7 is bad; mend it" in done.stderr and not (folder / "out/a.txt").exists()
    assert done.stderr.splitlines()[-1] == "dpo: a training process ended with 1; its own message stands above"


def test_a_process_that_hangs_ends_the_training_by_a_time_out_and_with_one_line(nodes):
    folder, found = nodes
    (folder / "source").write_text("hang")
    done = guard(folder, *TRAIN, **found, STAGE_HOSTS="hosts")
    assert re.search(r"^dpo: the training's processes lost each other \(.*Timed out", done.stderr, re.M), done.stderr
    assert not (folder / "out/a.txt").exists()


def test_a_node_with_other_code_is_refused(nodes, monkeypatch):
    folder, _ = nodes
    done = guard(folder, "--rank=another", *TRAIN, RANK="1", LOCAL_RANK="0")
    assert done.stderr.strip().endswith(
        "is another than where the stage was started; bring this node to the same commit"
    )


def test_nodes_that_are_not_known_or_too_few_are_refused(tmp_path, monkeypatch):
    for name in ("SLURM_JOB_ID", "STAGE_HOSTS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Refusal, match=r"runtime.nodes = 2, and there is neither a Slurm job nor a file of hosts; name"):
        launch.together_on(2, ["true"])
    (tmp_path / "hosts").write_text("a b\n")
    monkeypatch.setenv("STAGE_HOSTS", str(tmp_path / "hosts"))
    with pytest.raises(Refusal, match=rf"names 2 hosts, runtime.nodes = 2, and this one, {socket.gethostname()}, must"):
        launch.together_on(2, ["true"])
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(Refusal, match=r"runtime.nodes = 2, the Slurm job has 1; lower it, or ask for more"):
        launch.together_on(2, ["true"])
