"""Training steps in the environment that the guard gives a stage (stages/guard/lean.py), where a thread that waits soon
goes to sleep and memory is kept; where it spins on (OpenMP's way); and where memory is given back (glibc's). On an idle
machine and beside a program that keeps one core busy.

Run     python -m tests.perf.waiting [model]   (after `make repro`; else models/pi0)
Prints  seconds a step of each way, and how many times as long the other ways took: medians of rounds taken in turn
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

from stages.guard import lean

ROUNDS = 3
WAYS = {
    "the guard's way": lean.ENVIRONMENT,
    "spinning on": lean.MEMORY_KEPT,
    "giving memory back": lean.SOON_ASLEEP,
}
BUSY = "while True: pass"
STEPS = """
import sys, time, torch, transformers
torch.manual_seed(1)
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
optimizer = torch.optim.AdamW(model.parameters())
rows = torch.randint(model.config.vocab_size, (4, 64))
for step in range(3):
    if step == 1:
        start = time.monotonic()  # the first step pays for the optimizer's state
    model(rows, labels=rows).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print((time.monotonic() - start) / 2)
"""


@contextmanager
def company(programs: int) -> Iterator[None]:
    """So many programs that each keep a core busy."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(programs)]
    try:
        yield
    finally:
        for program in started:
            program.kill()
            program.wait()


def seconds(way: str, model: str) -> float:
    """Seconds a step, of two after the first."""
    environment = {name: value for name, value in os.environ.items() if name not in lean.ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", STEPS, model], env=environment | WAYS[way], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "models/pi0"
    for programs, name in ((0, "alone"), (1, "beside a busy core")):
        with company(programs):
            taken = {way: [] for way in WAYS}
            for _, way in product(range(ROUNDS), WAYS):
                taken[way].append(seconds(way, model))
        medians = {way: statistics.median(rounds) for way, rounds in taken.items()}
        for way, median in medians.items():
            times = median / medians["the guard's way"]
            print(f"{name}, {way}: {median:.2f} s a step, {times:.2f} times as long")


if __name__ == "__main__":
    main()
