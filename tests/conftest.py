import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent
os.chdir(ROOT)
os.environ["PATH"] = (
    f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # dvc and python of this environment
)
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ["GOMP_SPINCOUNT"] = "0"  # two workers share two cores: a thread that waits sleeps at once
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")  # an example that waits for the other worker, or imports torch, is no failure

KEYS = "guard.fingerprint --code stages --packages requirements.lock --keys code.lock.yaml".split()
"""What writes every stage's key, without which the guard runs no stage."""
FINGERPRINT = f"""\
  fingerprint:
    cmd: python -m stages.guard.run {" ".join(KEYS)}
    deps: [stages, requirements.lock]
    outs: [code.lock.yaml: {{cache: false}}]
"""
"""The same as a stage, for a dvc.yaml that a test writes."""

LONGEST = ["test_invalidation", "test_policy", "test_sharing", "test_smoke", "test_chaos"]
"""Begun first, the first of them while the smoke profile runs for the others: else one worker is alone at the end."""
SHARE_NOTHING = set(LONGEST) - {"test_invalidation"}
"""Files whose tests each have a run of their own, or only read one, so that they need not be one worker's."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.pluginmanager.hasplugin("randomly"):
        items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker takes a file at a time, since files share costly fixtures, but of the longest files a test at a time:
    the workers then end together. (xdist's own --dist loadgroup does nothing under pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFileOrTest(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return nodeid if Path(file).stem in SHARE_NOTHING else file

    return ByFileOrTest(config, log)


@pytest.fixture(autouse=True)
def threads_can_be_set() -> Iterator[None]:
    """By the tests that follow: vLLM's engine on a CPU puts a function that does nothing in the place of torch's, and a
    process of tests outlives it. A scorer then had two threads where it asked for one, and other last digits.
    """
    yield
    torch: Any = sys.modules.get("torch")
    if torch:
        torch.set_num_threads = torch._C.set_num_threads


def copy_tree(tmp_path: Path) -> Path:
    """The working tree's tracked and new files as a fresh git and DVC repository."""
    names = (
        subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], capture_output=True, check=True, cwd=ROOT
        )
        .stdout.decode()
        .split("\0")
    )
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    identity = "git config user.name t && git config user.email t@t"  # a clean machine has none
    subprocess.run(f"git init -q && {identity} && git add -A && git commit -qm t", shell=True, check=True, cwd=tmp_path)
    return tmp_path


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return copy_tree(tmp_path)


def guard(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    """A stage under the guard."""
    command = [sys.executable, "-m", "stages.guard.run", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | variables)


def sh(command: str, folder, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, **kwargs)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the smoke profile in a clone of its own, made once for all of pytest's workers.

    No test works in it: `smoke` and `own_smoke` are copies.
    """
    mine = tmp_path_factory.getbasetemp()
    shared = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "run-of-smoke"
    with (shared.parent / "run-of-smoke.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            (copy_tree(mine / "run") / "dvc.lock").unlink()  # the quickstart's, which each stage would write again
            done = sh("python -m stages.tools.profile smoke && dvc --wait-for-lock repro", mine / "run")
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
            (mine / "run").rename(shared)
    return shared


@pytest.fixture(scope="session")
def smoke_to_read(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(finished_run, tmp_path_factory.getbasetemp() / "smoke", symlinks=True)


@pytest.fixture
def smoke(smoke_to_read: Path) -> Iterator[Path]:
    """A finished run of the smoke profile for tests that only read: all tests of a worker share it.

    A test that changes a file of it fails; let it ask for `own_smoke`.
    """
    before = files_of(smoke_to_read)
    yield smoke_to_read
    after = files_of(smoke_to_read)
    changed = sorted(name for name in before | after if before.get(name) != after.get(name))
    assert not changed, f"{changed[:5]} changed in the run that tests share; ask for own_smoke"


@pytest.fixture
def own_smoke(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run of the smoke profile for one test, which may do with it what it likes."""
    return shutil.copytree(finished_run, tmp_path / "run", symlinks=True)


def files_of(run: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of a run, without what commands that only look leave beside it."""
    beside = {"__pycache__", ".scratch", "dvc_plots"}
    found = {}
    for folder, folders, files in os.walk(run):
        here = Path(folder)
        folders[:] = [name for name in folders if name not in beside and here / name != run / ".dvc/tmp"]
        for path in (here / name for name in files if here / name != run / ".git/index"):
            facts = path.lstat()
            found[str(path.relative_to(run))] = facts.st_size, facts.st_mtime_ns
    return found


def bring_tiny_model(folder: Path, number: int) -> Path:
    """The smoke profile's two-layer random model, as `base` writes it, drawn from a number."""
    from types import SimpleNamespace

    from stages.training import base

    section = SimpleNamespace(model="tiny-random", revision=str(number), template_settings={}, system_role="keep")
    params = SimpleNamespace(bases={"base": section}, dtype="float32")
    base.main(params, "base", ROOT / "data/raw/templates/base", model=folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bring_tiny_model(tmp_path_factory.mktemp("model") / "tiny", number=1)


@pytest.fixture
def runtime():
    from types import SimpleNamespace

    return SimpleNamespace(
        threads=2,
        forward_batch_tokens=256,
        micro_batch_rows=2,
        processes=1,
        deepspeed=0,
        gradient_checkpointing=False,
        checkpoint_minutes=None,
        report_to="none",
        engine_sequences=16,
        engine_memory_share=0.5,
        engine_cpu_cache_gib=1,
        gpus_per_worker=1,
    )


def distance(one: dict, two: dict) -> float:
    """Between two models' weights, each a dict of tensors."""
    return sum(float((one[k] - two[k]).norm()) ** 2 for k in one) ** 0.5


def pair(number: int) -> dict:
    """A pair of short answers to one prompt, its sides' lengths and the end of the rejected one by its number."""
    answer = lambda text: [{"role": "assistant", "content": text}]  # noqa: E731
    return {
        "id": str(number),
        "prompt": [{"role": "user", "content": "q"}],
        "chosen": answer("yes" * (number % 4 + 1)),
        "rejected": answer("no" * (number % 3 + 1)),
        "margin": 1.0,
        "chosen_finished": True,
        "rejected_finished": number % 2 == 0,
        "made_in": "t0",
    }


def pairs(number: int) -> list[dict]:
    return [pair(k) for k in range(number)]


def sides(model: Path, rows: list[dict]) -> list:
    """Token ids of the chosen side of every pair, then of the rejected side of every pair."""
    from stages import chat
    from stages.signals import forward
    from stages.training import reference

    answers = [reference.side(row, name) for name in ("chosen", "rejected") for row in rows]
    return forward.tokenized(chat.load_tokenizer(model), answers)


def log_probabilities(model: Path, tokens: list, dtype: str, runtime: Any) -> list[float]:
    """log pi of each row of (prompt, completion), in nats."""
    from stages.signals import forward

    values = forward.logprobs(model, dtype, runtime, alone=False)
    return values(tokens, ["x"] * len(tokens), lambda done: None)


@pytest.fixture
def history(tiny_model, runtime, tmp_path):
    """Eight pairs with the tiny model's log-probabilities."""
    from types import SimpleNamespace

    import pyarrow as pa
    import pyarrow.parquet as pq

    from stages.pairs import offline
    from stages.training import reference

    pq.write_table(pa.Table.from_pylist(pairs(8), offline.SCHEMA), tmp_path / "pairs.parquet")
    params = SimpleNamespace(dtype="float32", runtime=runtime, dpo=SimpleNamespace(quantized=False))
    reference.main(params, tiny_model, tmp_path / "pairs.parquet", reference=tmp_path / "history.parquet")
    return tmp_path / "history.parquet"


class StandIn(BaseHTTPRequestHandler):
    """How a stand-in of somebody's server answers; silent."""

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def serving(handler: type[StandIn]) -> Iterator[str]:
    """A stand-in server on this machine; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("STAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STAGE_KEY", "key")
    return tmp_path / "home/rows/key"


@pytest.fixture
def reward(tiny_model, tmp_path) -> Path:
    """A reward model with a random head."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from stages import chat

    torch.manual_seed(0)
    tokenizer = chat.load_tokenizer(tiny_model)
    options = {"num_labels": 1, "pad_token_id": tokenizer.pad_token_id}
    AutoModelForSequenceClassification.from_pretrained(tiny_model, **options).save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    return tmp_path / "reward"


def family(folder: Path) -> list[str]:
    """Every process that a stage in this folder has started, by its command line."""
    found, mark = [], f"STAGE_HOME={folder / '.scratch'}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
