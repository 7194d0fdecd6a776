"""Deal chunks of rows to several workers at once: actors of Ray, each a process with its own GPUs and its own loaded
model, on this machine or on the nodes of a cluster.

With runtime.workers > 1 this stands in the place of `rows.here`. Ray starts the processes, gives each its GPUs and
carries the rows; what a chunk is, what is kept of it and how results join stays with stages/rows.py, and a chunk's
result is the same whoever makes it. A worker gets its next chunk when it has finished one: none waits, nothing piles
up. One that dies costs the chunk it had, and another takes its place.

RAY_ADDRESS  host:port of a cluster that is there; every node sees this folder at the same path and has the same code
             and packages, which each worker checks. Else Ray is started here for this stage, and ends with it

Errors  Refusal, one line for the user; what a worker raises, as it would be raised here
"""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it tells nobody of its use,
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")  # leaves killing to the kernel,
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker died or was killed")  # and lets us say that a worker died

import logging
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from stages import rows, shards
from stages.guard import checks, fingerprint, launch, lean, quiet
from stages.guard.refusal import LESS_MEMORY, Refusal, explain

PATIENCE = 60
"""Seconds that a cluster has to find room for a worker, and a network to answer."""
STORE = 512 * 2**20
"""Bytes of shared memory for rows on their way; Ray would take a third of the machine's."""


STARTS, LOADS = "started", "loaded its model"
Task = rows.Chunk | str


class Worker:
    """A process of Ray's: one loaded model, one chunk at a time."""

    def __init__(self, worker: rows.Worker, stage: str, key: str, variables: dict[str, str]) -> None:
        self.worker, self.stage, self.key, self.variables = worker, stage, key, variables

    def name(self) -> str:
        return f"worker {os.getpid()} on {socket.gethostname()}"

    def load(self) -> None:
        """Make this process what the stage's own would be, check that the node is like it, and load the model."""
        os.chdir(checks.ROOT)
        if "OMP_NUM_THREADS" not in self.variables:  # Ray's 1; torch counts the cores, as it does in `rows.here`
            os.environ.pop("OMP_NUM_THREADS", None)
        os.environ.update(quiet.ENVIRONMENT | self.variables)
        quiet.loggers()
        lean.leave_out(fingerprint.packages(self.stage, checks.ROOT))
        with readable():
            checks.check_node(self.stage, self.key)
            self.work = self.worker.load()

    def finish(self, chunk: rows.Chunk) -> list[dict]:
        with readable():
            return chunk.finish(self.work, lambda number: None)


@contextmanager
def readable() -> Iterator[None]:
    """What is no bug travels as a Refusal: Ray keeps of an error its text, and not where it was raised."""
    try:
        yield
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        raise Refusal(line) from None


def dealer(stage: str, workers: int, gpus: int) -> rows.Deal:
    """How the guard has a stage's chunks dealt: to so many workers, each with so many GPUs where there are any."""

    def deal(worker: rows.Worker, chunks: list[rows.Chunk], tick: rows.Tick) -> Iterator[tuple[rows.Chunk, list[dict]]]:
        number = min(workers, len(chunks))
        if number == 1:  # an endpoint is asked all at once
            yield from rows.here(worker, chunks, tick)
            return
        words = worker, stage, fingerprint.key(stage, checks.ROOT), launch.handed_on()
        with cluster(number, gpus) as hire:
            yield from Desk(lambda: hire(*words), number, chunks).finished()

    return deal


@contextmanager
def cluster(workers: int, gpus: int) -> Iterator[Callable[..., Any]]:
    """A function that starts a worker; it ends with the block, and with it what was started here."""
    address = os.environ.get("RAY_ADDRESS")
    if address:
        check_answers(address)
        join(address)
    else:
        ray.init(
            "local",  # else it joins what `ray start` left on this machine
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=STORE,
        )
    try:
        each = gpus if check_gpus(workers, gpus, ray.cluster_resources().get("GPU", 0)) else 0
        yield ray.remote(num_cpus=0, num_gpus=each, scheduling_strategy="SPREAD")(Worker).remote
    finally:
        ray.shutdown()


def join(address: str) -> None:
    """Raises Refusal where the cluster does not let us in."""
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        token = "set RAY_AUTH_MODE=token, with its ~/.ray/auth_token here, where it asks for one (docs/scale.md)"
        raise Refusal(f"RAY_ADDRESS = {address} is no cluster that lets us in ({error}); {token}") from None


def check_answers(address: str) -> None:
    """Somebody listens at host:port. Raises Refusal: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE / 4).close()
    except (OSError, ValueError) as error:
        remedy = "start the cluster (`ray start --head`), correct RAY_ADDRESS, or unset it"
        raise Refusal(f"RAY_ADDRESS = {address} does not answer ({error}); {remedy}") from None


def check_gpus(workers: int, gpus: int, there: float) -> bool:
    """Whether workers compute on GPUs. Raises Refusal where there are some, but too few."""
    if workers * gpus > there > 0:
        asked = f"runtime.workers = {workers} x runtime.gpus_per_worker = {gpus}"
        raise Refusal(f"params.yaml: {asked} GPUs, Ray has {there:.0f}; lower them")
    return there > 0


class Desk:
    """Where workers get their chunks and bring what they made of them.

    `hire` starts a worker. `busy` is what Ray was asked for: the worker, and its task, which is a chunk, STARTS or
    LOADS. `suspects` are single prompts of a chunk in which two workers died.
    """

    def __init__(self, hire: Callable[[], Any], number: int, chunks: list[rows.Chunk]) -> None:
        self.hire, self.number, self.waiting = hire, number, deque(chunks)
        self.busy: dict[Any, tuple[Any, Task]] = {}
        self.idle: list[Any] = []
        self.names: dict[Any, str] = {}
        self.deaths: Counter[Task] = Counter()
        self.suspects: dict[rows.Chunk, rows.Chunk] = {}

    def finished(self) -> Iterator[tuple[rows.Chunk, list[dict]]]:
        """Every chunk with its results, as they come."""
        for _ in range(self.number):
            self.employ()
        while self.waiting or any(isinstance(task, rows.Chunk) for _, task in self.busy.values()):
            worker, task = self.busy.pop(ended := self.next())
            try:
                found = brought(ended)
            except RayActorError as death:
                self.bury(self.names.get(worker, "a worker"), task, death)
                self.employ()
                continue
            if task is STARTS:
                self.names[worker] = found
                self.busy[worker.load.remote()] = worker, LOADS
                continue
            self.idle.append(worker)
            self.give()
            if task in self.suspects:
                self.clear(task)
            elif isinstance(task, rows.Chunk):
                yield task, found

    def employ(self) -> None:
        worker = self.hire()
        self.busy[worker.name.remote()] = worker, STARTS
        self.give()

    def give(self) -> None:
        """Hand the next chunks to who has none."""
        while self.idle and self.waiting:
            worker, chunk = self.idle.pop(), self.waiting.popleft()
            self.busy[worker.finish.remote(chunk)] = worker, chunk

    def next(self) -> Any:
        """What Ray is done with next. Raises Refusal where nothing is at work and the cluster has no room."""
        wait_for_room = all(task is STARTS for _, task in self.busy.values())
        ended, _ = ray.wait([*self.busy], num_returns=1, timeout=PATIENCE if wait_for_room else None)
        if not ended:
            told = f"Ray found no room for a worker within {PATIENCE} s"
            raise Refusal(f"{told}; lower runtime.workers or runtime.gpus_per_worker, or wait for the cluster's others")
        return ended[0]

    def bury(self, name: str, task: Task, death: Exception) -> None:
        """Decide what becomes of a dead worker's task. Raises Refusal where the next one would die of it too."""
        self.deaths[task] += 1
        if not isinstance(task, rows.Chunk):
            if self.deaths[task] > self.number:
                how = str(death).strip().splitlines()[-1].strip()
                remedy = f"is there memory for {self.number} of them? lower runtime.workers"
                raise Refusal(f"{name} died while it {task}, as {self.number} before it ({how}); {remedy}")
        elif task in self.suspects:
            told = f"{name} died in {task} alone, as two workers in {self.suspects[task]}"
            raise Refusal(f"{told}; look at this row, and drop it or shorten it")
        elif self.deaths[task] == 1:
            print(f"{name} died in {task}, which is done again", flush=True)
            self.waiting.appendleft(task)
        else:
            print(f"{name} died in {task}, the second time there; its prompts are tried one by one", flush=True)
            alone = [rows.Chunk(part, task.key, task.columns, None) for part in shards.cut(task.rows, 1)]
            self.suspects |= dict.fromkeys(alone, task)
            self.waiting.extendleft(reversed(alone))

    def clear(self, prompt: rows.Chunk) -> None:
        """A suspect did no harm. Raises Refusal where it was the last one of its chunk."""
        chunk = self.suspects.pop(prompt)
        if chunk not in self.suspects.values():
            raise Refusal(f"two workers died in {chunk}, though each of its prompts alone is well; {LESS_MEMORY}")


def brought(ended: Any) -> Any:
    """What a worker made. Raises what it raised, a Refusal as such."""
    try:
        return ray.get(ended)
    except RayTaskError as error:
        if isinstance(error.cause, Refusal):
            raise Refusal(str(error.cause)) from None
        raise
