"""What a million raw rows cost in `prepare` and `filter`, against the plain way: one Python function call a row with
datasets.map and datasets.filter.

Run     python -m tests.perf.data [rows=1000000] [rows of the plain way=50000]     (after `dvc repro base`, for the
        tokenizer)
Prints  rows a second and peak memory of ours, of the plain way, and of the plain way without the rule on tokens; each
        in a process of its own

The rows are HH transcripts of a realistic length (1.6 KB a side), a tenth of them broken in one of five ways. No
benchmark and no test prompt is in use. The plain way counts the tokens of each row, as its peers do; ours only of a
row with more bytes than the limit has tokens.
"""

import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DISTINCT = 10_000
MAX_TOKENS = 4096
SYLLABLES = "ba ce di fo gu ha ki lo me nu pa ri so ta ve wo".split()


def transcript(rng: random.Random, vocabulary: list[str]) -> tuple[str, str, str]:
    """Context, chosen and rejected answer of one row, {} standing for what makes a copy of it another row."""

    def text(words: int) -> str:
        return " ".join(rng.choices(vocabulary, k=words))

    context = f"\n\nHuman: {{}} {text(40)}?\n\nAssistant: {text(60)}.\n\nHuman: {text(30)}\n\nAssistant:"
    return context, f" {text(100)}", f" {text(100)}"


def write_raw(path: Path, rows: int) -> None:
    rng = random.Random(1)
    vocabulary = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(5000)]
    base = [transcript(rng, vocabulary) for _ in range(DISTINCT)]
    schema = pa.schema([("chosen", pa.string()), ("rejected", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, DISTINCT):
            made = [broken(base, number) for number in range(start, min(start + DISTINCT, rows))]
            chosen, rejected = zip(*made, strict=True)
            writer.write_table(pa.table({"chosen": chosen, "rejected": rejected}, schema))


def broken(base: list[tuple[str, str, str]], number: int) -> tuple[str, str]:
    """A row with a fault in five of fifty: an empty answer, the same answers, an empty turn, a duplicate of the row
    before, a contradiction to it.
    """
    kind = number % 50
    number -= kind in (27, 35)
    context, chosen, rejected = base[number % DISTINCT]
    if kind == 3:
        chosen = " "
    elif kind == 11:
        rejected = chosen
    elif kind == 19:
        context = context.replace("Assistant: ", "Assistant: \n\nHuman: ", 1)
    elif kind == 35:
        chosen, rejected = rejected, chosen
    context = context.format(number)
    return context + chosen, context + rejected


def ours(raw: Path, folder: Path) -> None:
    from types import SimpleNamespace

    from stages.data import filter, mix_start, phrases
    from stages.data.sources import hh_rlhf
    from stages.messages import MESSAGES

    test, known, nothing = folder / "test.parquet", folder / "phrases.parquet", folder / "benchmarks"
    start, start_account = folder / "start.parquet", folder / "start.json"
    prepared, prepared_account = folder / "hh.parquet", folder / "hh.json"
    pq.write_table(pa.schema([("id", pa.string()), ("prompt", MESSAGES)]).empty_table(), test)
    nothing.mkdir()
    rules = SimpleNamespace(max_tokens=MAX_TOKENS, near_duplicates=0.0)
    params = SimpleNamespace(filter=rules, phrases=SimpleNamespace(words=13))
    phrases.main(params, nothing, phrases=known)
    mix_start.main(params, mixed=start, account=start_account)
    hh_rlhf.main(params, "hh", raw, preferences=prepared, metrics=prepared_account)
    filter.main(
        params,
        "hh",
        min_margin=0.0,
        rows=0,
        preferences=prepared,
        prepared=prepared_account,
        before=start,
        before_account=start_account,
        benchmarks=known,
        reserved=[test],
        model=Path("models/base"),
        mixed=folder / "mixed.parquet",
        account=folder / "mixed.json",
    )


def parse(row: dict) -> dict:
    """A row of the plain way: both transcripts as messages."""
    made = {}
    for side in ("chosen", "rejected"):
        marked = row[side].replace("\n\nHuman:", "\x1eH").replace("\n\nAssistant:", "\x1eA")
        turns = marked.split("\x1e")[1:]
        made[side] = [{"role": "user" if t[0] == "H" else "assistant", "content": t[1:].strip()} for t in turns]
    return {
        "prompt": made["chosen"][:-1],
        "chosen": made["chosen"][-1:],
        "rejected": made["rejected"][-1:],
        "other": made["rejected"][:-1],
    }


def sound(row: dict) -> bool:
    roles = [m["role"] for m in row["prompt"]]
    whole = all(m["content"] for m in row["prompt"] + row["chosen"] + row["rejected"])
    return (
        whole
        and row["prompt"] == row["other"]
        and roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        and row["chosen"] != row["rejected"]
    )


def plain(raw: Path, folder: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file("models/base/tokenizer.json")

    def tokens(messages: list[dict]) -> int:
        return len(tokenizer.encode("\n".join(message["content"] for message in messages)).ids)

    def short(row: dict) -> bool:
        return tokens(row["prompt"]) + max(tokens(row["chosen"]), tokens(row["rejected"])) <= MAX_TOKENS

    uncounted(raw, folder, short)


def uncounted(raw: Path, folder: Path, short: Callable[[dict], bool] = lambda row: True) -> None:
    import datasets

    datasets.disable_progress_bars()
    read: Any = datasets.load_dataset("parquet", data_files=str(raw), split="train", cache_dir=str(folder))
    rows = read.map(parse, remove_columns=["chosen", "rejected"]).filter(sound).filter(short)
    keys = [(str(row["prompt"]).lower(), row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]
    known, seen, kept = set(keys), set(), []
    for i, (prompt, chosen, rejected) in enumerate(keys):
        if (prompt, rejected, chosen) not in known and (prompt, chosen, rejected) not in seen:
            kept.append(i)
        seen.add((prompt, chosen, rejected))
    rows.select(kept).to_parquet(str(folder / "mixed.parquet"))


def measure(way: str, rows: int) -> float:
    """Rows a second of one way, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_raw(folder / "raw.parquet", rows)
        command = [sys.executable, "-m", "tests.perf.data", way, str(folder)]
        start = time.monotonic()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.monotonic() - start
        kept = len(pq.read_table(folder / "mixed.parquet", columns=[]))
    memory = done.stdout.splitlines()[-1]
    rate = rows / seconds
    told = f"{rows:,} rows in {seconds:.0f} s, {rate:,.0f} rows/s, peak memory {memory}"
    print(f"{way:9s}: {told}, {kept:,} kept", flush=True)
    return rate


def main() -> None:
    ways = {way.__name__: way for way in (ours, plain, uncounted)}
    if sys.argv[1:2] and sys.argv[1] in ways:
        folder = Path(sys.argv[2])
        ways[sys.argv[1]](folder / "raw.parquet", folder)
        print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
        return
    many, few = (int(word) for word in (sys.argv[1:] + ["1000000", "50000"][len(sys.argv) - 1 :]))
    rates = {way: measure(way, many if way == "ours" else few) for way in ways}
    with_tokens, without = (rates["ours"] / rates[way] for way in ("plain", "uncounted"))
    print(f"ratio {with_tokens:.1f}, without the rule on tokens {without:.1f}")


if __name__ == "__main__":
    main()
