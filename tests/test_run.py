"""The guard: outputs appear whole or not at all, errors are one line, nothing outlives its parent."""

import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from stages.guard import fingerprint, options, quiet
from tests.conftest import KEYS, guard, wait_for

STAGE = """
import json, os, subprocess, sys, time
from pathlib import Path
from typing import Any

def main(params: Any, source: Path, *, out: Path, metrics: Path) -> None:
    text = source.read_text()
    if text == "refuse":
        raise ValueError("row 7 is bad; mend it")
    out.write_text("half")
    rows = {"rows_in": 3, "rows_out": 2, "drops": {"empty": 1}}
    exec(text)
    out.write_text(f"whole {params.dpo.beta}")
    metrics.write_text(json.dumps(rows))
"""


@pytest.fixture
def scratch(clone: Path) -> Path:
    """A clone with one more stage, `probe`, whose input is the code it runs."""
    (clone / "stages/probe.py").write_text(STAGE)
    guard(clone, *KEYS)
    (clone / "out").mkdir()
    (clone / "source").write_text("pass")
    return clone


PROBE = ("probe", "--source", "source", "--out", "out/a.txt", "--metrics", "out/m.json")


def test_outputs_appear_whole(scratch):
    done = guard(scratch, *PROBE)
    assert done.returncode == 0, done.stderr
    assert (scratch / "out/a.txt").read_text() == "whole 0.1" and not list((scratch / "out/.partial").iterdir())


IN_FLIGHT = """
import torch
from torch import distributed

distributed.init_process_group("gloo")
class Held(torch.Tensor):
    "Python must be there when its last reference goes."
left = []
for _ in range(400):
    left.append(distributed.all_reduce(torch.ones(200_000).as_subclass(Held), async_op=True))
left.clear()
"""


def test_a_process_whose_last_tensors_are_still_on_their_way_ends_well(scratch):
    (scratch / "source").write_text(IN_FLIGHT)
    key = fingerprint.read(scratch / "code.lock.yaml")["probe"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [*torchrun, "-m", "stages.guard.run", f"--rank={key}", *PROBE]
    done = subprocess.run(words, cwd=scratch, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("refuse", "probe: row 7 is bad; mend it"),
        (
            "rows['rows_out'] = 1",
            "probe: 3 rows in, 1 out, drops {'empty': 1}: rows went missing; this is a bug of the stage",
        ),
        (
            "source.write_text('pass # edited')",
            "probe: an input changed during the run; the result was not recorded, run again",
        ),
        (
            "p = Path('params.yaml'); params.dpo.beta; p.write_text(p.read_text().replace('beta: 0.1', 'beta: 0.2'))",
            "dpo.beta changed from 0.1 to 0.2",
        ),
        ("raise OSError(28, 'No space left on device')", "probe: the disk is full ("),
        (
            "raise type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory. Tried 2 GiB')",
            "probe: the GPU's memory is full (CUDA out of memory. Tried 2 GiB); for a training lower",
        ),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing_half_written(scratch, code, told):
    (scratch / "source").write_text(code)
    (scratch / "out/a.txt").write_text("earlier")
    done = guard(scratch, *PROBE)
    assert done.returncode == 1 and told in done.stderr and done.stderr.count("\n") == 1
    assert (scratch / "out/a.txt").read_text() == "earlier" and not list((scratch / "out/.partial").iterdir())


def test_a_bug_keeps_its_traceback(scratch):
    (scratch / "source").write_text("1 / 0")
    done = guard(scratch, *PROBE)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and "Traceback" in done.stderr


SOURCES = {
    "DeepSpeed": "deepspeed/accelerator/real_accelerator.py",
    "transformers.modeling_utils": "transformers/utils/loading_report.py",
}
"""Of the loggers whose words do not stand in the module that they are named after."""


@pytest.mark.parametrize("logger", quiet.SAID)
def test_what_a_library_is_not_heard_to_say_stands_in_its_source(logger):
    packages = Path(sysconfig.get_path("purelib"))
    source = packages / SOURCES.get(logger, f"{logger.replace('.', '/')}.py")
    assert quiet.SAID[logger] in source.read_text(encoding="utf-8")


def test_of_the_libraries_nothing_is_heard_that_a_good_run_says_too(scratch):
    (scratch / "source").write_text(
        "import logging, warnings; log = logging.getLogger('DeepSpeed'); warnings.warn('old', FutureWarning);"
        "log.warning('Setting accelerator to CPU.'); log.warning('broken'); print(os.environ['VLLM_LOGGING_LEVEL'])"
    )
    for variables, level in (({}, "ERROR"), ({"VLLM_LOGGING_LEVEL": "INFO"}, "INFO")):
        done = guard(scratch, *PROBE, **variables)
        assert done.returncode == 0 and done.stderr == "broken\n" and done.stdout == f"{level}\n"


def test_threads_of_a_stage_soon_sleep_while_they_wait_unless_the_user_wants_otherwise(scratch, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT")  # conftest's
    (scratch / "source").write_text("print(os.environ['GOMP_SPINCOUNT'])")
    assert guard(scratch, *PROBE).stdout == "10000\n"
    assert guard(scratch, *PROBE, GOMP_SPINCOUNT="1").stdout == "1\n"


AGAIN = """
import resource
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensor = b'x' * (64 << 20)
    del tensor
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_that_a_stage_has_freed_is_there_for_its_next_tensor_without_the_kernel(scratch):
    """64 MiB are 16,384 pages."""
    (scratch / "source").write_text(AGAIN)
    first, second = (int(line) for line in guard(scratch, *PROBE).stdout.split())
    assert first > 16_000 and second < 100


GARBAGE = """
import atexit, gc, sys
class Found:
    def __del__(self):
        print("found")
sys.modules["held"] = Found()  # until Python ends
sys.modules["held"].itself = sys.modules["held"]
atexit.register(gc.unfreeze)
"""


def test_a_stage_ends_without_a_search_for_garbage_though_a_library_thaws_what_is_frozen(scratch):
    (scratch / "source").write_text(GARBAGE)
    done = guard(scratch, *PROBE)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_package_that_only_libraries_would_import_is_left_out_unless_the_stage_asks_for_it(scratch):
    stage = scratch / "stages/probe.py"
    for imported, found in (("", "False"), ("import sklearn\n", "True")):
        stage.write_text(imported + STAGE)
        guard(scratch, *KEYS)
        (scratch / "source").write_text("import importlib.util; print(importlib.util.find_spec('sklearn') is not None)")
        done = guard(scratch, *PROBE)
        assert (done.returncode, done.stdout) == (0, f"{found}\n"), done.stderr


def test_an_edit_of_a_param_that_the_stage_does_not_read_costs_it_nothing(scratch):
    (scratch / "source").write_text(
        "p = Path('params.yaml'); p.write_text(p.read_text().replace('micro_batch_rows: 4', 'micro_batch_rows: 2'))"
    )
    assert guard(scratch, *PROBE).returncode == 0


def test_code_that_differs_from_its_fingerprint_does_not_run(scratch):
    (scratch / "stages/probe.py").write_text(STAGE.replace("half", "other"))
    done = guard(scratch, *PROBE)
    assert (
        done.returncode == 1
        and "its code differs from code.lock.yaml" in done.stderr
        and "dvc --wait-for-lock repro" in done.stderr
    )


def test_a_package_other_than_the_locked_one_does_not_run(scratch):
    lock = scratch / "requirements.lock"
    lock.write_text(lock.read_text().replace("\npyarrow==", "\npyarrow==1."))
    (scratch / "stages/probe.py").write_text("import pyarrow\n" + STAGE)
    guard(
        scratch, "guard.fingerprint", "--code", "stages", "--packages", "requirements.lock", "--keys", "code.lock.yaml"
    )
    done = guard(scratch, *PROBE)
    assert done.returncode == 1 and "pyarrow 1." in done.stderr and "make setup" in done.stderr


def test_an_import_that_the_fingerprint_cannot_follow_is_one_line(scratch):
    (scratch / "stages/probe.py").write_text("from . import chat\n" + STAGE)
    done = guard(scratch, *PROBE)
    assert done.returncode == 1 and "stages/probe.py:1: relative import; name the module whole" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_input_says_how_to_get_it(scratch):
    (scratch / "source").unlink()
    done = guard(scratch, *PROBE)
    assert done.returncode == 1 and "source is missing; bring it with `dvc pull source`" in done.stderr


def test_a_second_writer_of_an_output_is_refused(scratch):
    (scratch / "source").write_text("time.sleep(30)")
    first = subprocess.Popen([sys.executable, "-m", "stages.guard.run", *PROBE], cwd=scratch)
    wait_for(lambda: (scratch / "out/.partial/a.txt").exists())
    second = guard(scratch, *PROBE)
    first.kill()
    first.wait()
    assert second.returncode == 1 and "is being written by another run" in second.stderr


NAMED = """\
child = "import setproctitle, time; setproctitle.setproctitle('sleep ' + '4711'); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)"""
"""A child that names itself, as Ray's agents do."""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("shell", [[], ["sh", "-c"]], ids=["a shell that gave way", "a shell that stays"])
def test_nothing_outlives_a_killed_parent_and_the_next_run_is_whole(scratch, sign, shell):
    """The parent stands for dvc; the stage has started a child in a session of its own, as an engine may do."""
    (scratch / "source").write_text(f"{NAMED}; time.sleep(60)")
    words = [sys.executable, "-m", "stages.guard.run", *PROBE]
    command = (
        [*shell, f"{' '.join(words)}; true"] if shell else words
    )  # `; true`: no shell gives way to the first of two
    program = f"import subprocess; subprocess.run({command!r})"
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=scratch)
    wait_for(lambda: processes(scratch, "sleep 4711"))
    os.kill(parent.pid, sign)
    parent.wait()
    gone = "sleep 4711", "stages.guard.run"
    wait_for(lambda: not any(processes(scratch, words) for words in gone), seconds=20)
    assert not (scratch / "out/a.txt").exists()
    (scratch / "source").write_text("pass")
    assert guard(scratch, *PROBE).returncode == 0 and (scratch / "out/a.txt").read_text() == "whole 0.1"


def processes(folder: Path, words: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if words in line and os.readlink(entry / "cwd") == str(folder):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_full_disk_is_one_line_and_leaves_nothing(scratch):
    """A real file system of 1 MiB, where the machine lets us mount one."""
    disk = scratch / "out"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        (scratch / "source").write_text("out.write_bytes(bytes(4 << 20))")
        done = guard(scratch, *PROBE)
        assert done.returncode == 1 and "the disk is full" in done.stderr and done.stderr.count("\n") == 1
        assert not list((disk / ".partial").iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--scores", "--pairs", "b"], "argument --scores: expected at least one argument"),
        (["--scores", "a", "--pairs", "b", "c"], "unrecognized arguments: c"),
        (["--scores", "a"], "the following arguments are required: --pairs"),
        (["--scores", "a", "--pairs", "b", "--nothing", "c"], "unrecognized arguments: --nothing c"),
    ],
)
def test_options_that_do_not_fit_the_stage_are_refused(argv, told):
    with pytest.raises(ValueError, match=rf"^{told}; mend the command in dvc\.yaml"):
        options.parse(argv, {"scores": list[Path], "pairs": Path})


def test_a_word_where_a_number_belongs_is_refused():
    with pytest.raises(ValueError, match=r"^argument --min_margin: invalid float value: 'much'; mend .* params\.yaml"):
        options.parse(["--min_margin", "much"], {"min_margin": float})


def test_options_come_as_their_types_names_with_spaces_whole():
    types = {"margin": float, "raw": Path, "shards": list[Path], "member": int}
    given = options.parse(["--margin", "1e-3", "--raw", "my set", "--shards", "a", "b", "--member", "0"], types)
    assert given == {"margin": 0.001, "raw": Path("my set"), "shards": [Path("a"), Path("b")], "member": 0}
