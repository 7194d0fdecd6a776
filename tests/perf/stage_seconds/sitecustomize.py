"""Seen by every Python process when this folder is on PYTHONPATH: what a stage's seconds go to, one JSON line per
stage in $STAGE_SECONDS.

`imports` is time in outermost import statements, `load` in PreTrainedModel.from_pretrained and vllm.LLM(), without the
imports they make.
"""

import atexit
import builtins
import json
import os
import sys
import time
from typing import Any

SPENT = {"imports": 0.0, "load": 0.0}
STACK: list[str] = []
MARK = [time.monotonic()]
PATCHED: set[str] = set()
PROCESS = os.getpid()
real_import = builtins.__import__


def switch(kind: str | None) -> None:
    """Book the time since the last switch on what was on top of the stack, then push `kind`, or pop."""
    now = time.monotonic()
    if STACK:
        SPENT[STACK[-1]] += now - MARK[0]
    MARK[0] = now
    STACK.append(kind) if kind else STACK.pop()


def timed(function, kind):
    def wrapper(*args, **kwargs):
        if STACK[-1:] == [kind]:
            return function(*args, **kwargs)
        switch(kind)
        try:
            return function(*args, **kwargs)
        finally:
            switch(None)

    return wrapper


def patch() -> None:
    """Time the loaders, once they are there."""
    transformers: Any = sys.modules.get("transformers.modeling_utils")
    vllm: Any = sys.modules.get("vllm.entrypoints.llm")
    if "transformers" not in PATCHED and hasattr(transformers, "PreTrainedModel"):
        PATCHED.add("transformers")
        model = transformers.PreTrainedModel
        model.from_pretrained = classmethod(timed(model.from_pretrained.__func__, "load"))
    if "vllm" not in PATCHED and hasattr(vllm, "LLM"):
        PATCHED.add("vllm")
        vllm.LLM.__init__ = timed(vllm.LLM.__init__, "load")


def importing(*args, **kwargs):
    if STACK[-1:] == ["imports"]:
        return real_import(*args, **kwargs)
    switch("imports")
    try:
        return real_import(*args, **kwargs)
    finally:
        switch(None)
        patch()


def started() -> float:
    """Seconds since boot at which this process began; it stays the same when the guard replaces itself by exec."""
    with open("/proc/self/stat", encoding="utf-8") as file:
        return int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def write() -> None:
    if os.getpid() == PROCESS and "stages.guard.run" in sys.orig_argv:
        stage = sys.orig_argv[sys.orig_argv.index("stages.guard.run") + 1]
        line = {"stage": stage, "total": time.clock_gettime(time.CLOCK_BOOTTIME) - started(), **SPENT}
        with open(os.environ["STAGE_SECONDS"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if os.environ.get("STAGE_SECONDS"):
    builtins.__import__ = importing
    atexit.register(write)
