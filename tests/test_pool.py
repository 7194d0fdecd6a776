"""Rows over workers of Ray, on a cluster of two nodes on this machine: the same rows whoever makes them, and what
becomes of a worker or a node that dies.
"""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages import rows
from stages.guard import launch, pool
from stages.guard.refusal import Refusal
from tests.conftest import ROOT, sh
from tests.counted import LENGTHS, ROWS, Counted, candidates, content, score, texts

STAGE = "sampling.generate"
LOST = re.compile(r"worker \d+ on \S+ died in the chunk b/0 to b/1, which is done again\n")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of Ray, which start no worker of ours by themselves."""
    from ray.cluster_utils import Cluster

    quiet = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **quiet})
    started.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    started.wait_for_nodes()
    yield started
    started.shutdown()


@pytest.fixture
def dealt(cluster, monkeypatch):
    """A function that lets so many workers of the cluster do the rows."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    return lambda workers: monkeypatch.setattr(rows, "deal", pool.dealer(STAGE, workers, 1))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_rows_are_the_same_whoever_makes_them(dealt, tmp_path, workers):
    dealt(workers)
    asked = texts(*((name, 2) for name in "abcdefgh"))
    worker = Counted(tmp_path / "log")
    assert rows.mapped([asked, ROWS], worker, "count", 2) == [
        [row | {"length": 2, "share": 1 / 3} for row in part] for part in (asked, ROWS)
    ]
    assert sorted(worker.begun()) == sorted(f"{n}0 {n}1" for n in "abcdefghabc")


def test_scores_are_the_same_to_the_byte_with_one_two_and_three_workers(dealt, reward, tmp_path):
    asked = candidates(tmp_path / "candidates", 640, 320)
    for workers in (1, 2, 3):
        dealt(workers)
        score(reward, asked, tmp_path / f"by-{workers}")
    assert content(tmp_path / "by-1") == content(tmp_path / "by-2") == content(tmp_path / "by-3")


def test_a_worker_that_is_killed_costs_its_chunk_and_another_takes_its_place(dealt, tmp_path, capsys):
    dealt(2)
    worker = Counted(tmp_path / "log", fatal="b1", lives=1)
    assert rows.mapped([ROWS], worker, "count", 2) == [LENGTHS]
    assert sorted(worker.begun()) == ["a0 a1", "b0 b1", "b0 b1", "c0 c1"]
    assert LOST.search(capsys.readouterr().out)


def test_rows_that_kill_worker_after_worker_are_named_and_what_is_finished_stays(dealt, home, tmp_path):
    dealt(2)
    asked = texts(*((name, 2) for name in "cdab"))
    worker = Counted(tmp_path / "log", fatal="b1", lives=9)
    told = r"worker \d+ on \S+ died in the chunk b/0 to b/1 alone, as two workers in the chunk a/0 to b/1; look at this"
    with pytest.raises(Refusal, match=told):
        rows.mapped([asked], worker, "count", 4)
    assert worker.begun().count("b0 b1") == 1 and worker.begun().count("a0 a1 b0 b1") == 2
    assert len(list(home.glob("*.parquet"))) == 1  # c and d
    healed = Counted(tmp_path / "healed")
    rows.mapped([asked], healed, "count", 4)
    assert healed.begun() == ["a0 a1 b0 b1"]


def test_a_node_that_is_lost_costs_the_chunk_that_it_had(cluster, dealt, tmp_path):
    dealt(2)
    extra, asked = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20), texts(*((n, 1) for n in "abcdefghij"))
    worker = Counted(tmp_path / "log", seconds=0.5)

    def lose(done: int = 0) -> None:
        cluster.remove_node(extra, allow_graceful=False)

    found = []
    for part in rows.deal(worker, rows.chunked(asked, worker, "count", 1, ("id", "sample")), lambda number: None):
        found.append(part)
        if len(found) == 2:
            lose()
    assert len(found) == 10 and len(worker.begun()) <= 12


class Fails(Counted):
    """A worker whose row 7 is bad, or whose code is."""

    def load(self) -> rows.Work:
        def fail(asked: list[dict], tick: rows.Tick) -> list[dict]:
            return [][1] if self.lost == "bug" else score(*[Path("nowhere")] * 3)  # type: ignore[func-returns-value]

        return fail


def test_what_a_worker_refuses_is_one_line_here_and_a_bug_keeps_its_traceback(dealt, tmp_path):
    from ray.exceptions import RayTaskError

    dealt(2)
    with pytest.raises(Refusal, match="nowhere holds no shard; run"):
        rows.mapped([ROWS], Fails(tmp_path / "log"), "count", 2)
    with pytest.raises(RayTaskError, match=r"test_pool\.py.*in fail"):
        rows.mapped([ROWS], Fails(tmp_path / "log", lost="bug"), "count", 2)


def test_a_node_with_other_code_is_refused(dealt, tmp_path, monkeypatch):
    dealt(2)
    monkeypatch.setattr(pool.fingerprint, "key", lambda stage, root: "another")
    with pytest.raises(Refusal, match=r"\S+: its code or its requirements.lock is another than"):
        rows.mapped([ROWS], Counted(tmp_path / "log"), "count", 2)


def test_more_gpus_than_there_are_and_an_address_that_does_not_answer_are_refused_at_once(monkeypatch, tmp_path):
    with pytest.raises(Refusal, match=r"runtime.workers = 2 x runtime.gpus_per_worker = 4 GPUs, Ray has 3; lower them"):
        pool.check_gpus(2, 4, 3.0)
    assert pool.check_gpus(2, 1, 2.0) and not pool.check_gpus(2, 1, 0.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")
    monkeypatch.setattr(rows, "deal", pool.dealer(STAGE, 2, 1))
    began = time.monotonic()
    with pytest.raises(
        Refusal, match=r"RAY_ADDRESS = 127.0.0.1:\d+ does not answer .*; start the cluster \(`ray start"
    ):
        rows.mapped([ROWS], Counted(tmp_path / "log"), "count", 2)
    assert time.monotonic() - began < 5 and os.environ["RAY_ADDRESS"]


def test_a_cluster_that_asks_for_a_token_lets_us_in_with_it_is_named_without_and_left_alone_where_nobody_named_it():
    port = launch.free_port()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 2}
    named = f"from stages.guard import pool; pool.join('127.0.0.1:{port}')"
    nameless = "import ray; from stages.guard import pool; c = pool.cluster(3, 1); c.__enter__()"
    told = f"{nameless}; print(ray.cluster_resources()['CPU'])"
    settings = {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_AUTH_MODE": "disabled"}

    def python(code: str, **more: str) -> subprocess.CompletedProcess:
        return sh(f'{sys.executable} -c "{code}"', ROOT, env=os.environ | settings | more)

    head = f"ray start --head --block --port {port} --num-cpus 1 --include-dashboard false"
    with subprocess.Popen(
        head.split(), env=os.environ | token, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as started:
        try:
            assert started.stdout and any("Ray runtime started" in line for line in started.stdout)
            refused, joined, own = python(named), python(named, **token), python(told)
        finally:
            started.terminate()
    assert f"RAY_ADDRESS = 127.0.0.1:{port} is no cluster that lets us in" in refused.stderr
    assert "set RAY_AUTH_MODE=token, with its ~/.ray/auth_token here" in refused.stderr
    assert joined.returncode == 0, joined.stderr
    assert own.stdout.strip() == "3.0", own.stderr
