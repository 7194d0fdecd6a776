"""What a trainer's data path takes at the paper's size: 700,000 pairs, made up of the quickstart's words.

Run     python -m tests.perf.paper_size [pairs]     (a reward model's pairs, by the tokenizer of models/base)
Prints  seconds until every pair is on disk as token ids, of a second start, of the naive way's first 20,000 pairs (all
        rows as Python lists, as every process did before) and what it would take for all; memory in GiB of each
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

NAIVE = 20_000
WORDS = 270, 330, 330
"""Mean words of a prompt and of either answer: about 1,210 tokens a pair of sides, 0.85 G in all."""
PART = 10_000


def made(path: Path, pairs: int) -> None:
    """Pairs with lengths like real ones, half to double the mean."""
    said = Path("data/raw/quickstart/annotations.jsonl").read_text(encoding="utf-8")
    words, draw = [word for word in said.split() if word.isalpha()], random.Random(1)

    def text(mean: int) -> str:
        begin, number = draw.randrange(len(words) // 2), int(mean * draw.uniform(0.5, 1.5))
        return " ".join(words[begin : begin + number])

    def pair(k: int) -> dict[str, Any]:
        prompt, chosen, rejected = map(text, WORDS)
        return {
            "id": f"p{k}",
            "prompt": [{"role": "user", "content": f"{k} {prompt}"}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "chosen_finished": True,
            "rejected": [{"role": "assistant", "content": rejected}],
            "rejected_finished": True,
            "margin": 1.0,
        }

    first = pa.Table.from_pylist([pair(0)])
    with pq.ParquetWriter(path, first.schema) as file:
        for start in range(0, pairs, PART):
            file.write_table(pa.Table.from_pylist([pair(k) for k in range(start, min(pairs, start + PART))]))


def ours(path: Path) -> dict[str, float]:
    from stages.guard.params import load
    from stages.training import reward_model

    section = load(Path("params.yaml")).reward_model.model_copy(update={"max_tokens": 4096, "margin": 0.0})
    found = reward_model.parted(Path("models/base"), path, section)
    tokens = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in found.sets["train"].select(range(1000)))
    return {"rows": sum(map(len, found.sets.values())), "tokens_per_pair": tokens / 1000}


def naive(path: Path) -> dict[str, float]:
    """Every row as Python lists, and a data set of them."""
    from datasets import Dataset

    from stages import chat
    from stages.training import reward_model

    tokenizer = chat.load_tokenizer(Path("models/base"))
    rows = pq.read_table(path).slice(0, NAIVE).to_pylist()
    data = Dataset.from_list([reward_model.tokenize(tokenizer, row, 0.0) for row in rows])
    return {"rows": len(data)}


def measured(way: str, path: Path, scratch: Path) -> dict[str, float]:
    """Seconds and the most memory of one process, in a process of its own."""
    words = [sys.executable, "-m", "tests.perf.paper_size", "--alone", way, str(path)]
    done = subprocess.run(words, env=os.environ | {"STAGE_SCRATCH": str(scratch)}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def alone(way: str, path: Path) -> None:
    began = time.perf_counter()
    found = {"ours": ours, "naive": naive}[way](path)
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    memory = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20
    print(json.dumps(found | {"seconds": time.perf_counter() - began, "gib": memory}))


def main() -> None:
    if sys.argv[1:2] == ["--alone"]:
        return alone(sys.argv[2], Path(sys.argv[3]))
    pairs = int(sys.argv[1]) if sys.argv[1:] else 700_000
    with tempfile.TemporaryDirectory(dir=".scratch") as folder:
        path, scratch = Path(folder, "pairs.parquet"), Path(folder, "scratch")
        made(path, pairs)
        for name in ("first start", "second start"):
            took = measured("ours", path, scratch)
            told = f"{took['rows']:,.0f} pairs of {took['tokens_per_pair']:.0f} tokens"
            print(f"{name}: {took['seconds']:.1f} s, {took['gib']:.2f} GiB in a process, {told}", flush=True)
        took = measured("naive", path, scratch)
        scale = pairs / took["rows"]
        whole = f"{took['seconds'] * scale / 60:.0f} minutes and {took['gib'] * scale:.0f} GiB for all"
        print(f"naive, {NAIVE:,} pairs: {took['seconds']:.1f} s, {took['gib']:.2f} GiB; {whole}, in every process")


if __name__ == "__main__":
    main()
