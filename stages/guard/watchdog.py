"""See to it that nothing of a stage outlives the process that started it, however either of them dies.

The kernel ends the guard when its parent dies. That is dvc where the shell gives way to its only command, as bash and
zsh do; dash and fish stay between the two and outlive dvc. What the guard started itself, engine workers and
torchrun's children, have other parents. So a watchdog outside the family ends all of it once the guard, or who started
it, is gone. All of them are known by a mark in their environment, which a process that names itself must leave there.
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

from stages.guard import lean, quiet

MARK = "STAGE_RUN_ID"
UTF8 = {"PYTHONUTF8": "1"}  # libraries too read and write UTF-8, whatever the locale
MARK_STAYS = {"SPT_NOENV": "1"}
"""A process that names itself by setproctitle else loses the environment that it began with, mark and all: one killed
run in five left an agent of Ray's alive for another minute.
"""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def starter() -> int:
    """Who started this program: its parent, or where that is a shell which waits for this very command, the shell's
    parent.
    """
    parent = Path(f"/proc/{os.getppid()}")
    with contextlib.suppress(OSError):  # another user's process
        if b"stages.guard.run" in (parent / "cmdline").read_bytes():
            return int((parent / "stat").read_bytes().rpartition(b")")[2].split()[1])
    return os.getppid()


def watch_over(pids: list[int], mark: str) -> None:
    """Fork a watchdog that, once one of `pids` is gone, kills every process that carries `mark` in its environment."""
    if os.fork():
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    with contextlib.suppress(ProcessLookupError):  # one is gone already
        select.select([os.pidfd_open(pid) for pid in pids], [], [])
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
    """Die with the parent; at the first start also start this program again under a watchdog, with a mark that every
    descendant inherits, and with what must be said before Python or a library starts.
    """
    die_with_parent()
    if MARK in os.environ:
        return
    mark = uuid.uuid4().hex
    watch_over([os.getpid(), starter()], mark)
    environment = quiet.ENVIRONMENT | lean.ENVIRONMENT | os.environ | UTF8 | MARK_STAYS | {MARK: mark}
    os.execve(sys.executable, [sys.executable, "-m", "stages.guard.run", *sys.argv[1:]], environment)
