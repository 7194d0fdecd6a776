"""Run a program that a model wrote, with its tests, where it can do no harm: in bubblewrap, and nowhere else.

The program sees no network, no environment, no process but its own, and of the files a Python with the standard library
and the system's libraries, read-only, and an empty /tmp in memory that goes with it. It is nobody, without
capabilities, and can make no namespace of its own. Time, memory, processes, files and what it writes are limited; its
output goes to /dev/null. When the call is over nothing of it is there any more.

bubblewrap is always started by an ordinary user, so that the kernel counts the sandbox's processes by themselves. Root
becomes nobody first, and hands over its Python in a mount of its own, since nobody may not look into /root.

Not covered. Memory is limited for each process and not for all together, which takes a cgroup: the worst are
PROCESSES times the limit, and what the kernel itself keeps for a program that goes for it. The kernel's own gaps, and
the keys of the caller's session keyring. And the program shares its process with its tests, as in every such benchmark:
what ends early, prints or raises is not taken for a pass, but one written against this very module could read the token
out of its pipe, as it could return an object that equals everything.

Source  bubblewrap 0.8, bwrap(1); setrlimit(2); the tests' words and the time: HumanEval's and code_eval's
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from stages.benchmarks import launcher

OUTCOMES = ("passed", "failed", "timed_out", "over_memory", "no_program")
PROCESSES, FILES, FILE_MIB, FOLDER_MIB = 8, 64, 16, 64
"""Processes at once, bubblewrap's own one among them; open files; MiB of a file; MiB of /tmp."""
PATIENCE = 3
"""Seconds by the clock for each of the CPU's, for a program that waits instead of computing."""
NOBODY, OVER_MEMORY, NO_PROGRAM = "65534", launcher.OVER_MEMORY, launcher.NO_PROGRAM
TIMED_OUT = (128 + signal.SIGXCPU, 128 + signal.SIGKILL)
"""Exit codes of bubblewrap where a process reached its CPU limit; the second where it ignored the first."""
SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
LENT = "/tmp/python"
"""Where nobody finds root's Python."""


def python() -> tuple[Path, Path]:
    """The Python behind this environment, and the folder that it was installed into."""
    program = getattr(sys, "_base_executable", sys.executable)
    return Path(program).resolve(), Path(sys.base_prefix).resolve()


def as_nobody() -> list[str]:
    """Of root: a command that runs another as nobody, in a process namespace, so that the other ends with it: what has
    no capability may not even send nobody the signal.
    """
    lent = ["--dev-bind", "/", "/", "--tmpfs", "/tmp", "--ro-bind", str(python()[1]), LENT]
    becomes = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [bubblewrap(), "--unshare-pid", "--die-with-parent", *lent, "setpriv", *becomes]


def files() -> list[str]:
    """Options that show the sandbox a Python, its libraries and an empty /tmp."""
    program, installed = python()
    seen = Path(LENT) if os.getuid() == 0 else installed
    options = ["--size", str(FOLDER_MIB * 2**20), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for path in SYSTEM:
        options += ["--ro-bind-try", path, path]
    for path in dict.fromkeys([program, installed / "lib", installed / sys.platlibdir]):
        options += ["--ro-bind-try", str(seen / path.relative_to(installed)), str(path)]
    return [*options, "--dev-bind", "/dev/null", "/dev/null", "--remount-ro", "/"]


def command(text: str) -> list[str]:
    """A command that runs a Python text in the sandbox."""
    alone = [f"--unshare-{name}" for name in ("user", "ipc", "pid", "net", "uts", "cgroup-try")]
    alone += ["--disable-userns", "--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL", "--new-session"]
    bare = ["--die-with-parent", "--clearenv", "--setenv", "PYTHONHASHSEED", "0"]
    before = as_nobody() if os.getuid() == 0 else []
    return [*before, bubblewrap(), *alone, *bare, *files(), str(python()[0]), "-S", "-s", "-P", "-c", text]


def bubblewrap() -> str:
    """Raises ValueError where it is not installed."""
    found = shutil.which("bwrap")
    if not found:
        told = "programs that a model wrote run in bubblewrap alone, and there is no bwrap here"
        raise ValueError(f"{told}; install the package bubblewrap, or take humaneval and mbpp out of benchmarks")
    return found


def refused(told: str) -> ValueError:
    """bubblewrap could not make a sandbox, by its own words."""
    remedy = "use bubblewrap 0.8 or newer where ordinary users may make user namespaces"
    return ValueError(f"bubblewrap can make no sandbox here ({' '.join(told.split())}); {remedy}")


def check() -> None:
    """Raise ValueError unless a sandbox can be made here."""
    done = subprocess.run(command("pass"), env={}, capture_output=True, text=True)
    if done.returncode:
        raise refused(done.stderr)


def limits(seconds: int, memory_mib: int) -> str:
    """What the launcher sets: name, soft and hard limit of each."""
    memory, file = memory_mib * 2**20, FILE_MIB * 2**20
    same = {"AS": memory, "NPROC": PROCESSES, "NOFILE": FILES, "FSIZE": file, "CORE": 0}
    return f"CPU {seconds} {seconds + 1} " + " ".join(f"{name} {value} {value}" for name, value in same.items())


def run(program: str, tests: str, allowed: Any) -> str:
    """One of OUTCOMES; `allowed` are seconds of the CPU and MiB of memory, of each process.

    Raises ValueError where the sandbox did not start.
    """
    token = secrets.token_hex(16)
    lines = [limits(allowed.seconds, allowed.memory_mib), program, tests, token]
    told = b"".join(map(launcher.escaped, lines))
    text = Path(launcher.__file__).read_text(encoding="utf-8")
    with tempfile.TemporaryFile() as said:
        code, trouble = ended(command(text), told, said, allowed.seconds * PATIENCE)
        said.seek(0)
        heard = said.read(len(launcher.STARTED) + len(token) + 1)
    if not heard.startswith(launcher.STARTED):
        raise refused(trouble)
    if code is None or code in TIMED_OUT:
        return "timed_out"
    if code == 0 and heard == launcher.STARTED + token.encode():
        return "passed"
    return {NO_PROGRAM: "no_program", OVER_MEMORY: "over_memory"}.get(code, "failed")


def ended(words: list[str], told: bytes, said: Any, seconds: float) -> tuple[int | None, str]:
    """Exit code, None where the clock ended it, and what bubblewrap complained of.

    Raises ValueError where somebody else ended it. The sandbox writes into a file, whose size its limit bounds, and not
    into a pipe, which would fill our memory.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(words, stdin=pipe, stdout=said, stderr=pipe, env={}, start_new_session=True)
    try:
        _, trouble = process.communicate(told, timeout=seconds)
        if process.returncode < 0:
            raise ValueError(f"signal {-process.returncode} from outside ended a sandbox; run grade again")
        return process.returncode, trouble.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return None, f"it took over {seconds} s to start"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
