"""What runs inside the sandbox: a program, then its tests, and behind the last of them the token.

stages/benchmarks/sandbox.py hands this text to a bare Python, so it imports the standard library alone and knows no
path. It reads four lines from stdin, each `escaped`: limits, program, tests, token; and writes STARTED to stdout, then
the token once every test has passed.

The four lines are read one byte at a time, each only when it is needed. So while the program and its tests run, the
token lies in a pipe and in nobody's memory, and what the launcher calls afterwards it has looked up before. How a
process ends that does not pass is its exit code.
"""

import io
import os
import random
import resource

STARTED = b"."
FAILED, NO_PROGRAM, OVER_MEMORY = 1, 10, 11


def escaped(text: str) -> bytes:
    """A text as one line."""
    return text.encode("unicode_escape") + b"\n"


def limit(told: str) -> None:
    """Set limits, soft and hard, from `CPU 3 4 AS 536870912 536870912`."""
    words = told.split()
    for name, soft, hard in zip(words[::3], words[1::3], words[2::3], strict=True):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (int(soft), int(hard)))


def launch() -> None:
    take, out = io.FileIO(os.dup(0)).readline, os.dup(1)
    write, leave, compiled, run, error = os.write, os._exit, compile, exec, BaseException
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.environ.clear()
    random.seed(0)
    limit(take().decode("unicode_escape"))
    write(out, STARTED)
    try:
        program = compiled(take().decode("unicode_escape"), "program", "exec")
    except MemoryError:
        leave(OVER_MEMORY)
    except error:
        leave(NO_PROGRAM)
    names: dict = {}
    try:
        run(program, names)
        run(compiled(take().decode("unicode_escape"), "tests", "exec"), names)
    except MemoryError:
        leave(OVER_MEMORY)
    except error:
        leave(FAILED)
    write(out, take()[:-1])
    leave(0)


if __name__ == "__main__":
    launch()
