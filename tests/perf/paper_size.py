"""What the recipe's CPU work takes at the paper's size, on rows made up of the quickstart's words.

Run     python -m tests.perf.paper_size pairs       (after `make repro`: it reads models/base and data/responses)
        python -m tests.perf.paper_size rank
        python -m tests.perf.paper_size evaluate
Prints  seconds and GiB of a process each
        pairs: 700,000 of a reward model until all are on disk as token ids; a second start; and the naive way's first
            20,000 (all rows as Python lists, as every process did before) and what it would take for all
        rank: 8 completions of each of 60,000 prompts, to pairs
        evaluate: 10,000 resamples of 1,000 test prompts and as many validation prompts, answered once each
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PAIRS, PROMPTS, N = 700_000, 60_000, 8
TESTS, RESAMPLES = 1_000, 10_000
NAIVE = 20_000
WORDS = 270, 330, 330
"""Mean words of a prompt and of either answer: about 1,210 tokens a pair of sides, 0.85 G in all."""
PART = 10_000


def writer() -> Callable[[int], str]:
    """Texts of about so many words, half to one and a half of it."""
    said = Path("data/raw/quickstart/annotations.jsonl").read_text(encoding="utf-8")
    words, draw = [word for word in said.split() if word.isalpha()], random.Random(1)

    def text(mean: int) -> str:
        begin, number = draw.randrange(len(words) // 2), int(mean * draw.uniform(0.5, 1.5))
        return " ".join(words[begin : begin + number])

    return text


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def written(path: Path, rows: Iterator[dict[str, Any]], schema: pa.Schema | None = None) -> None:
    """A few rows in memory at a time."""
    first = list(islice(rows, PART))
    kind = schema or pa.Table.from_pylist(first[:1]).schema
    with pq.ParquetWriter(path, kind) as file:
        while first:
            file.write_table(pa.Table.from_pylist(first, kind))
            first = list(islice(rows, PART))


def pairs(folder: Path) -> None:
    text = writer()

    def pair(k: int) -> dict[str, Any]:
        prompt, chosen, rejected = map(text, WORDS)
        return {
            "id": f"p{k}",
            "prompt": asked(f"{k} {prompt}"),
            "chosen": [{"role": "assistant", "content": chosen}],
            "chosen_finished": True,
            "rejected": [{"role": "assistant", "content": rejected}],
            "rejected_finished": True,
            "margin": 1.0,
        }

    written(folder / "pairs.parquet", map(pair, range(PAIRS)))


def scores(folder: Path) -> None:
    """A scorer's shards, of 4,096 completions each."""
    text, draw = writer(), random.Random(2)
    (folder / "scores").mkdir()

    def completions(k: int) -> list[dict[str, Any]]:
        prompt = asked(f"{k} {text(WORDS[0])}")
        row = {"id": f"p{k}", "prompt": prompt, "temperature": 1.0, "finished": True}
        return [row | {"sample": j, "completion": text(WORDS[1]), "reward": draw.gauss(0.0, 1.0)} for j in range(N)]

    each = 4096 // N
    for number, start in enumerate(range(0, PROMPTS, each)):
        rows = (row for k in range(start, min(PROMPTS, start + each)) for row in completions(k))
        written(folder / f"scores/shard-{number:05d}.parquet", rows)


def measures(folder: Path) -> None:
    """The quickstart's answers, over and over, under other prompts' names."""
    for name in ("pi0", "offline", "pi2"):
        table = pq.read_table(f"data/measures/{name}.parquet")
        real, half = table.to_pylist(), TESTS
        rows = (
            real[k % len(real)] | {"id": f"p{k}", "sample": 0, "split": ("test", "validation")[k // half]}
            for k in range(2 * half)
        )
        written(folder / f"{name}.parquet", rows, table.schema)


def token_ids(folder: Path) -> dict[str, float]:
    from stages.guard.params import load
    from stages.training import reward_model

    section = load(Path("params.yaml")).reward_model.model_copy(update={"max_tokens": 4096, "margin": 0.0})
    found = reward_model.parted(Path("models/base"), folder / "pairs.parquet", section)
    return {"rows": sum(map(len, found.sets.values()))}


def ranked(folder: Path) -> dict[str, float]:
    from stages.guard.params import load
    from stages.pairs import rank

    out = {"pairs": folder / "ranked.parquet", "metrics": folder / "ranked.json"}
    rank.main(load(Path("params.yaml")), folder / "scores", "pi0", **out)
    return {"rows": PROMPTS * N}


def evaluated(folder: Path) -> dict[str, float]:
    from stages.evaluation import evaluate
    from stages.guard.params import load

    params = load(Path("params.yaml"))
    often = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"resamples": RESAMPLES})})
    mine, pi0, offline = (folder / f"{name}.parquet" for name in ("pi2", "pi0", "offline"))
    evaluate.main(often, mine, pi0, offline, [], metrics=folder / "pi2.json")
    return {"rows": 2 * TESTS}


def naive(folder: Path) -> dict[str, float]:
    """Every row as Python lists, and a data set of them."""
    from datasets import Dataset

    from stages import chat
    from stages.training import reward_model

    tokenizer = chat.load_tokenizer(Path("models/base"))
    with pq.ParquetFile(folder / "pairs.parquet") as file:
        rows = next(file.iter_batches(NAIVE)).to_pylist()
    data = Dataset.from_list([reward_model.tokenize(tokenizer, row, 0.0) for row in rows])
    return {"rows": len(data)}


WAYS = {"token_ids": token_ids, "naive": naive, "rank": ranked, "evaluate": evaluated}
MAKERS = {"pairs": pairs, "rank": scores, "evaluate": measures}


def measured(way: str, folder: Path) -> dict[str, float]:
    """Seconds and the most memory of one process, in a process of its own."""
    words = [sys.executable, "-m", "tests.perf.paper_size", "--alone", way, str(folder)]
    done = subprocess.run(
        words, env=os.environ | {"STAGE_SCRATCH": str(folder / "scratch")}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def alone(way: str, folder: Path) -> None:
    began = time.perf_counter()
    found = WAYS[way](folder)
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    memory = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20
    print(json.dumps(found | {"seconds": time.perf_counter() - began, "gib": memory}))


def main() -> None:
    if sys.argv[1:2] == ["--alone"]:
        return alone(sys.argv[2], Path(sys.argv[3]))
    what = sys.argv[1]
    Path(".scratch").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=".scratch") as name:
        folder = Path(name)
        MAKERS[what](folder)
        for way in ("token_ids", "token_ids", "naive") if what == "pairs" else (what,):
            took = measured(way, folder)
            print(f"{way}: {took['rows']:,.0f} rows, {took['seconds']:.1f} s, {took['gib']:.2f} GiB", flush=True)
            if way == "naive":
                scale = PAIRS / took["rows"]
                whole = f"{took['seconds'] * scale / 60:.0f} minutes and {took['gib'] * scale:.0f} GiB"
                print(f"all pairs would be {whole}, in every process")


if __name__ == "__main__":
    main()
