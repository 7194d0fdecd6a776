"""Training steps where a thread that waits soon goes to sleep (the guard's way, stages/guard/lean.py) and where it
spins on (OpenMP's), on an idle machine and beside a program that keeps one core busy.

Run     python -m tests.perf.waiting [model]   (after `make repro`; else models/pi0)
Prints  seconds a step of each way, and how many times as long the spinning took: medians of rounds taken in turn
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
WAYS = {"soon asleep": lean.ENVIRONMENT, "spinning on": {}}
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
        asleep, spinning = (statistics.median(taken[way]) for way in WAYS)
        told = f"{asleep:.2f} s a step soon asleep, {spinning:.2f} s spinning on"
        print(f"{name}: {told}, {spinning / asleep:.2f} times as long")


if __name__ == "__main__":
    main()
