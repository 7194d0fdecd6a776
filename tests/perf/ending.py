"""How long a process takes to end after its work is done, where Python then searches all objects for garbage, and by
the guard's way (stages/guard/lean.py), which freezes them.

Run     python -m tests.perf.ending [model]   (after `make repro`; else models/pi0)
Prints  seconds of each way after a forward pass and after sampling with vLLM: medians of rounds taken in turn
"""

import statistics
import subprocess
import sys
import time
from itertools import product

ROUNDS = 3
BEGIN = """
import sys
from stages.guard import lean
lean.leave_out(set())
if sys.argv[2] == "frozen":
    lean.end_soon()
"""
WORKS = {
    "a forward pass": """
import torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
model(torch.ones((1, 8), dtype=torch.long))
""",
    "a sample of vLLM": """
from pathlib import Path
from stages.sampling import engine
layout = engine.Layout(sequences=1, memory_share=0.5, cpu_cache_gib=1, gpus=1)
worker = engine.Sampler(Path(sys.argv[1]), "float32", 1, 8, 128, False, "keep", layout)
worker.load()([{"prompt": [{"role": "user", "content": "q"}], "temperature": 1.0, "seed": 1}], lambda done: None)
""",
}
END = 'print("done", flush=True)'


def seconds(work: str, way: str, model: str) -> float:
    """From the last word to the end of the process."""
    words = [sys.executable, "-c", BEGIN + WORKS[work] + END, model, way]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        said = process.stdout.readline()
        start = time.monotonic()
        if process.wait() or said != "done\n":
            sys.exit(process.stderr.read())
    return time.monotonic() - start


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "models/pi0"
    for work in WORKS:
        taken = {way: [] for way in ("frozen", "searched")}
        for _, way in product(range(ROUNDS), taken):
            taken[way].append(seconds(work, way, model))
        frozen, searched = (statistics.median(taken[way]) for way in taken)
        print(f"after {work}: {frozen:.2f} s frozen, {searched:.2f} s searched")


if __name__ == "__main__":
    main()
