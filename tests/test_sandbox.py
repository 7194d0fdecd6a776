"""Escape attempts: a program that a model wrote reaches nothing, leaves nothing behind, passes by its tests alone."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from stages.benchmarks import sandbox
from tests.conftest import ROOT


def reason() -> str:
    """Why there is no sandbox here; empty where there is one."""
    try:
        sandbox.check()
    except ValueError as error:
        return str(error)
    return ""


WHY_NOT = reason()
here = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
ALLOWED = SimpleNamespace(seconds=10, memory_mib=256)
SHORT = SimpleNamespace(seconds=1, memory_mib=256)


def run(program: str, tests: str = "", allowed: SimpleNamespace = ALLOWED) -> str:
    return sandbox.run(program, tests, allowed)


def named(name: str) -> list[int]:
    """Living host processes of this name."""
    found = [process.info | {"pid": process.pid} for process in psutil.process_iter(["name", "status"])]
    return [one["pid"] for one in found if one["name"] == name and one["status"] != psutil.STATUS_ZOMBIE]


def gone(name: str) -> bool:
    """Whether no process of this name is left, two seconds given."""
    until = time.monotonic() + 2
    while named(name) and time.monotonic() < until:
        time.sleep(0.02)
    return not named(name)


CALLED = "import ctypes; ctypes.CDLL(None).prctl(15, b'{}')\n"
"""Gives a process a name that the host sees; its children bear it too."""


@here
@pytest.mark.parametrize(
    ("program", "tests", "outcome"),
    [
        ("def two():\n    return 2", "assert two() == 2", "passed"),
        ("def two():\n    return 3", "assert two() == 2", "failed"),
        ("name = 'ä \\u2028 \\\\n'", "assert len(name) == 6", "passed"),
        ("Here is the program:", "", "no_program"),
        ("x = '\0'", "", "no_program"),
        ("import math, collections, re, itertools, heapq, decimal, datetime, hashlib, json, typing", "", "passed"),
        ("def deep(n):\n    return deep(n + 1)", "deep(0)", "failed"),
    ],
)
def test_a_program_is_run_with_its_tests(program, tests, outcome):
    assert run(program, tests) == outcome


@here
def test_no_socket_is_reached():
    program = """import socket
def reached(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2)
    except OSError:
        return False
    return True"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(2)
        port = server.getsockname()[1]
        assert run(program, f"assert not reached({port})") == "passed"
        socket.create_connection(("127.0.0.1", port)).close()  # and from here it is
        server.accept()[0].close()
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


@here
def test_the_repository_the_hosts_files_and_the_environment_are_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("JUDGE_API_KEY", "sk-secret")
    (tmp_path / "secret").write_text("sk-secret", encoding="utf-8")
    hidden = [
        ROOT / "params.yaml",
        "/etc/passwd",
        "/etc/hostname",
        tmp_path / "secret",
        "/proc/self/environ",
        "/dev/shm",
    ]
    program = f"""import importlib.util, os
hidden = [path for path in {[str(path) for path in hidden]} if os.path.exists(path)]
packages = [name for name in ("numpy", "torch", "pip", "stages") if importlib.util.find_spec(name)]"""
    tests = """assert not hidden, hidden
assert not packages and not os.environ
assert os.getuid() == 65534 and os.getpid() < 5 and os.listdir() == []"""
    assert run(program, tests) == "passed"
    assert sorted(os.listdir("/etc")) != ["ld.so.cache"]  # as it is inside


@here
def test_nothing_is_written_outside_and_nothing_stays(tmp_path):
    places = ["/x", "/usr/lib/x", "/etc/x", f"{tmp_path}/x", f"{ROOT}/x", f"{Path(sys.base_prefix)}/lib/x"]
    program = f"""def written(path):
    try:
        open(path, "w").write("x")
    except OSError:
        return False
    return True
places = [path for path in {places} if written(path)]"""
    assert run(program, "assert not places\nassert written('/tmp/kept')") == "passed"
    assert not list(tmp_path.iterdir()) and not any(map(os.path.exists, [*places, "/tmp/kept"]))
    assert run("import os", "assert not os.path.exists('/tmp/kept')") == "passed"


@here
def test_it_can_make_no_namespace_of_its_own_and_has_no_capability():
    program = """import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def refused(call, *arguments):
    return call(*arguments) == -1 and ctypes.get_errno() in (1, 22, 28)  # EPERM, EINVAL, ENOSPC
NEW_USER, NEW_NET, NEW_MOUNTS = 0x10000000, 0x40000000, 0x20000"""
    tests = """assert all(refused(libc.unshare, one) for one in (NEW_USER, NEW_NET, NEW_MOUNTS, NEW_USER | NEW_MOUNTS))
assert refused(libc.mount, b"tmpfs", b"/tmp", b"tmpfs", 0, None) and refused(libc.setuid, 0)
assert all(libc.prctl(23, capability) == 0 for capability in range(38))"""
    assert run(program, tests) == "passed"


@here
def test_a_fork_bomb_stays_small_and_ends_with_the_call(monkeypatch):
    monkeypatch.setattr(sandbox, "PATIENCE", 2)
    counts = f"""{CALLED.format("mild_bomb")}import os, time
def children():
    for number in range(100):
        try:
            if os.fork() == 0:
                time.sleep(60)
        except OSError:
            return number"""
    assert run(counts, f"assert 0 < children() < {sandbox.PROCESSES}") == "passed"
    assert gone("mild_bomb")
    bomb = f"{CALLED.format('wild_bomb')}import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    assert run(bomb, allowed=SHORT) == "timed_out"
    assert gone("wild_bomb")


@here
def test_what_forks_twice_into_a_session_of_its_own_does_not_outlive_the_call():
    program = f"""{CALLED.format("survivor")}import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("/tmp/alive", "w").close()
        while True:
            time.sleep(1)
    os._exit(0)
while not os.path.exists("/tmp/alive"):
    time.sleep(0.01)"""
    assert run(program) == "passed"  # so it was alive
    assert gone("survivor")


@here
@pytest.mark.parametrize("program", ["x = bytearray(10**10)", "x = []\nwhile True:\n    x.append(bytes(10**6))"])
def test_memory_is_limited(program):
    assert run(program) == "over_memory"


@here
@pytest.mark.parametrize("program", ["with open('/tmp/x', 'wb') as f:\n    f.write(bytes(20 * 2**20))", "{}"])
def test_files_are_limited(program):
    many = "\n".join(f"with open('/tmp/{k}', 'wb') as f: f.write(bytes(15 * 2**20))" for k in range(5))
    assert run(program.format(many)) == "failed"
    assert run("with open('/tmp/x', 'wb') as f:\n    f.write(bytes(15 * 2**20))") == "passed"


ENDLESS = (
    "while True: pass",
    "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
    "import time\ntime.sleep(60)",
)


@here
def test_time_is_limited(monkeypatch):
    monkeypatch.setattr(sandbox, "PATIENCE", 2)
    begun = time.monotonic()
    with ThreadPoolExecutor(len(ENDLESS)) as pool:
        found = list(pool.map(lambda program: run(program, allowed=SHORT), ENDLESS))
    assert found == ["timed_out"] * len(ENDLESS) and 1 < time.monotonic() - begun < 10


@here
def test_output_goes_nowhere_and_fills_nothing(capfd):
    assert (
        run("for k in range(30):\n    print('x' * 10**7)\nimport sys\nprint('x' * 10**8, file=sys.stderr)") == "passed"
    )
    flood = "import os\nfor k in range(10**6):\n    for fd in range(3, 64):\n        try: os.write(fd, b'x' * 10**5)\n"
    assert run(f"{flood}        except OSError: pass", allowed=SHORT) in ("failed", "timed_out")
    assert capfd.readouterr() == ("", "")


LEAVES = {
    "prints": "print('passed')",
    "prints what the launcher begins with": "import os\nfor fd in range(64):\n    try: os.write(fd, b'.passed')\n"
    "    except OSError: pass\nos._exit(0)",
    "os._exit": "import os\nos._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "SystemExit": "raise SystemExit",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "exit when asked": "import os\ndef two():\n    os._exit(0)",
    "sys.exit when asked": "def two():\n    raise SystemExit(0)",
    "a thread": "import os, threading\nthreading.Timer(0, os._exit, [0]).start()\nimport time\ntime.sleep(1)",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)",
    "replaces exec": "import builtins\nbuiltins.exec = builtins.compile = lambda *_: None",
    "replaces assertions": "import builtins\nbuiltins.AssertionError = builtins.BaseException = SystemExit",
    "replaces the process": "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'pass'])",
    "kills itself": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
}


@here
@pytest.mark.parametrize("how", LEAVES)
def test_who_leaves_before_the_tests_are_through_does_not_pass(how):
    assert run(f"{LEAVES[how]}\n", "assert two() == 2") == "failed"


@here
def test_the_token_is_in_no_frame_no_argument_no_variable_and_no_file():
    program = """import gc, os, re, sys
def seen():
    frame, texts = sys._getframe(), [*sys.argv, *sys.orig_argv, *map(str, os.environ.items())]
    while frame:
        texts += map(repr, [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts])
        frame = frame.f_back
    texts += [repr(one) for one in gc.get_objects() if isinstance(one, (dict, list, tuple))]
    for folder, _, files in os.walk("/tmp"):
        texts += files
    return [text for text in texts if re.search(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", text)]
early = seen()"""
    assert run(program, "assert early == [] and seen() == []") == "passed"
    assert (
        run(f"mine = '{'0123456789abcdef' * 2}'\n{program}", "assert early and seen()") == "passed"
    )  # it can find one


@here
def test_the_same_program_ends_in_the_same_way():
    drawn = "import random\nx = (random.random(), list({'a', 'b', 'c', 'd', 'e'}), hash('a'))"
    first = "import random\nrandom.seed(0)\n" + drawn + "\nprint(repr(x))"
    told = subprocess.run(
        [sys.executable, "-c", first], env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True
    )
    assert run(drawn, f"assert repr(x) == {told.stdout.strip()!r}") == "passed"


@here
def test_a_process_killed_with_its_caller_leaves_no_sandbox():
    program = CALLED.format("orphan") + "import time; time.sleep(60)"
    begin = "from types import SimpleNamespace as N\nfrom stages.benchmarks import sandbox\n"
    text = f"{begin}sandbox.run({program!r}, '', N(seconds=20, memory_mib=256))"
    caller = subprocess.Popen([sys.executable, "-c", text], cwd=ROOT)
    until = time.monotonic() + 10
    while not named("orphan") and time.monotonic() < until:
        time.sleep(0.02)
    assert named("orphan")
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert gone("orphan")


def test_without_bubblewrap_it_refuses_and_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for call in (sandbox.check, lambda: run("x = 1")):
        with pytest.raises(
            ValueError, match="there is no bwrap here; install the package bubblewrap, or take humaneval"
        ):
            call()


def test_where_bubblewrap_can_make_no_namespace_it_refuses_in_its_words(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for call in (sandbox.check, lambda: run("x = 1")):
        with pytest.raises(
            ValueError, match=r"can make no sandbox here \(bwrap: setting up uid map: .*\); use bubblewrap"
        ):
            call()
