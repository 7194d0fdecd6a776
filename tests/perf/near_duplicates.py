"""Near-duplicate search: rows a second and recall on planted repetitions, by rensa (what the filter uses) and by
datasketch.

Run     python -m tests.perf.near_duplicates [rows=20000]     (datasketch is not in the lock: pip install
        datasketch==2.0.0)
Prints  for each: rows a second of hashing and finding candidates, and the share of planted repetitions found

Every tenth row is followed by a copy with some words changed; planted counts a copy whose prompt and both answers are
still alike by 0.8.
"""

import random
import sys
import time
from collections.abc import Callable

import numpy as np
import polars as pl

from stages.data import near_duplicates
from tests.perf.data import SYLLABLES

THRESHOLD = 0.8


def rows_with_copies(number: int) -> tuple[pl.DataFrame, list[tuple[int, int]]]:
    """Texts, and the (original, copy) rows that a search should find."""
    rng = random.Random(1)
    vocabulary = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(5000)]
    rows: list[tuple[str, ...]] = []
    planted = []
    while len(rows) < number:
        rows.append(tuple(" ".join(rng.choices(vocabulary, k=n)) for n in (60, 100, 100)))
        if len(rows) % 10 == 0:
            changed = rng.uniform(0, 0.06)
            copy = tuple(reworded(text, changed, vocabulary, rng) for text in rows[-1])
            if near_duplicates.alike(rows[-1], copy, THRESHOLD):
                planted.append((len(rows) - 1, len(rows)))
            rows.append(copy)
    return pl.DataFrame(rows, schema=near_duplicates.PARTS, orient="row"), planted


def reworded(text: str, share: float, vocabulary: list[str], rng: random.Random) -> str:
    """The text with about such a share of its words replaced."""
    return " ".join(word if rng.random() > share else rng.choice(vocabulary) for word in text.split())


def by_rensa(texts: pl.DataFrame) -> set[tuple[int, int]]:
    return near_duplicates.candidates(near_duplicates.bands(texts))


def by_datasketch(texts: pl.DataFrame) -> set[tuple[int, int]]:
    from datasketch import MinHash, MinHashLSH  # pyright: ignore[reportMissingImports]

    shape = (near_duplicates.BANDS, near_duplicates.WIDTH)
    permutations = shape[0] * shape[1]
    index, found = MinHashLSH(num_perm=permutations, params=shape), set()
    rows, hashes = near_duplicates.tokens(texts)
    starts = np.searchsorted(rows, np.arange(1, len(texts)))
    for row, tokens in enumerate(np.split(hashes, starts)):
        minhash = MinHash(num_perm=permutations, hashfunc=lambda token: token & 0xFFFFFFFF)
        minhash.update_batch(tokens.tolist())
        found |= {(int(str(earlier)), row) for earlier in index.query(minhash)}
        index.insert(str(row), minhash)
    return found


def main() -> None:
    texts, planted = rows_with_copies(int((sys.argv[1:] or ["20000"])[0]))
    ways: dict[str, Callable] = {"rensa": by_rensa, "datasketch": by_datasketch}
    for name, way in ways.items():
        start = time.monotonic()
        found = way(texts)
        seconds = time.monotonic() - start
        recall = sum(pair in found for pair in planted) / len(planted)
        told = f"recall {recall:.3f} of {len(planted)} planted, {len(found)} candidates"
        print(f"{name}: {len(texts) / seconds:,.0f} rows/s, {told}", flush=True)


if __name__ == "__main__":
    main()
