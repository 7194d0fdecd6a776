"""What libraries take for nothing: packages that they import merely because these are installed, for what no stage asks
of them; the core on which a thread of OpenMP spins while it waits for the others; memory that is given back to the
kernel only to be asked for again; and a last search for garbage.
"""

import atexit
import gc
import sys

UNASKED = {
    "bitsandbytes": "peft imports it for weights in 4 bits: 1.1 to 2.4 s of a trainer that has none",
    "ray": "vLLM imports it for engines over several nodes: 0.4 s; the guard's pool brings it back",
    "sklearn": "transformers imports it for assisted generation: 1.3 s in every stage with a model",
}

SOON_ASLEEP = {"GOMP_SPINCOUNT": "10000"}
"""A thread that waits soon goes to sleep. OpenMP lets it spin on, and beside any other program the thread that it waits
for then lacks that core: a training step took 3.5 times as long, and alone the same (tests/perf/waiting.py).
"""

MEMORY_KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""What was freed is kept for the next tensor. glibc gives each of over 32 MiB back to the kernel, which hands the next
one out by pages of 4 KiB, zeroed: 13 % of the quickstart's `dpo` (docs/performance.md). glibc reads it at a start.
"""

ENVIRONMENT = SOON_ASLEEP | MEMORY_KEPT


def leave_out(used: set[str]) -> None:
    """Whoever looks for one of the others is told that it is not installed; `used` are the stage's own imports."""
    for name in UNASKED.keys() - used:
        sys.modules.setdefault(name, None)  # pyright: ignore[reportArgumentType]


def bring_back(name: str) -> None:
    """Let it be imported after all."""
    if name in sys.modules and sys.modules[name] is None:
        del sys.modules[name]


def end_soon() -> None:
    """Let Python end without a search for garbage in all that the libraries made: 0.7 s after a stage with a model, 1.7
    after one with vLLM (tests/perf/ending.py). Registered first, it runs last, as it must: vLLM thaws what is frozen.
    """
    atexit.register(gc.freeze)
