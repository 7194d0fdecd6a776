"""See to it that nothing of a stage outlives the process that started it, however either of them dies.

The kernel ends the guard when dvc dies. What the guard started itself, engine workers and torchrun's children, have other parents; a
watchdog outside the family ends them once the guard is gone. All of them are known by a mark in their environment.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
import uuid
from pathlib import Path

MARK = "STAGE_RUN_ID"


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def watch_over(pid: int, mark: str) -> None:
    """Fork a watchdog that, once `pid` is gone, kills every process that carries `mark` in its environment.

    Engine workers and torchrun's children have other parents than the guard, so the kernel's signal does not reach them.
    """
    if os.fork():
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    select.select([os.pidfd_open(pid)], [], [])
    for _ in range(3):  # again, for a child that was being born
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid() and carries(entry, mark):
                with contextlib.suppress(OSError):  # it may be gone by itself
                    os.kill(int(entry.name), signal.SIGKILL)
        time.sleep(0.1)
    os._exit(0)


def carries(process: Path, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (process / "environ").read_bytes()
    except OSError:
        return False


def guard_family() -> None:
    """Die with the parent; at the first start also start this program again under a watchdog, with a mark that every descendant inherits."""
    die_with_parent()
    if MARK in os.environ:
        return
    mark = uuid.uuid4().hex
    watch_over(os.getpid(), mark)
    os.execve(sys.executable, [sys.executable, "-m", "stages.run", *sys.argv[1:]], {**os.environ, MARK: mark})
