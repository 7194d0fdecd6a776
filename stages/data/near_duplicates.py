"""Find pairs of preferences that say nearly the same: prompt, chosen and rejected answer each share most of their
three-word phrases.

Only `filter` uses it. MinHash (rensa) finds candidates, which are then compared exactly. Each of the three texts has
to be alike: two pairs that share a prompt and one answer, as all pairs of four answers do, are no near-duplicates.

Source  Broder 1997 (MinHash); 16 bands of 8 hashes find a pair of similarity 0.8 with probability 0.95, one of 0.9
        with 0.9999
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] (compiled, without stubs)

from stages.data import overlap
from stages.words import words

BANDS, WIDTH, WORDS, SEED = 16, 8, 3, 6
PARTS = ["prompt", "chosen", "rejected"]


def texts(frame: pl.DataFrame) -> pl.DataFrame:
    """prompt, chosen, rejected of SCHEMA's rows as plain texts."""
    return frame.select(overlap.text(part).fill_null("") for part in PARTS)


def tokens(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(row, uint64 hash) of all phrases of a frame's texts, by row; a phrase of a prompt is another token than the
    same one of an answer.
    """
    found = [overlap.phrases(frame[part], WORDS) for part in PARTS]
    rows = np.concatenate([row for row, _ in found])
    marks = [np.uint64(k * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) for k in range(len(PARTS))]
    hashes = np.concatenate([hashed ^ mark for mark, (_, hashed) in zip(marks, found, strict=True)])
    order = np.argsort(rows, kind="stable")
    return rows[order], hashes[order]


def bands(frame: pl.DataFrame) -> np.ndarray:
    """(N, BANDS) uint64: rows with an equal value in a column are candidates."""
    rows, hashes = tokens(frame)
    offsets = np.searchsorted(rows, np.arange(len(frame) + 1))
    digests = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), BANDS * WIDTH, SEED)
    matrix = np.array(digests.to_rows(), np.uint64).reshape(len(frame), BANDS, WIDTH)
    total = np.zeros((len(frame), BANDS), np.uint64)
    for k in range(WIDTH):
        total = total * np.uint64(0x9E3779B97F4A7C15) + matrix[:, :, k]
    return total


def candidates(table: np.ndarray) -> set[tuple[int, int]]:
    """(earlier, later) rows of `table` (N, BANDS) that share a band: each row with the first of its bucket and with
    the one before it.
    """
    found: set[tuple[int, int]] = set()
    for k in range(table.shape[1]):
        order = np.argsort(table[:, k], kind="stable")
        same = np.flatnonzero(table[order[1:], k] == table[order[:-1], k]) + 1
        first = np.searchsorted(table[order, k], table[order[same], k])
        for earlier in (first, same - 1):
            found |= set(zip(order[earlier].tolist(), order[same].tolist(), strict=True))
    return found


def grams(text: str) -> set[tuple[str, ...]]:
    """The phrases themselves, of the words that overlap.phrases hashes."""
    found = words(text)
    return set(zip(*(found[k:] for k in range(WORDS)), strict=False)) or {tuple(found)}


def alike(a: tuple[str, ...], b: tuple[str, ...], threshold: float) -> bool:
    """Whether each part of two pairs has a Jaccard similarity of `threshold` at least, by three-word phrases."""
    sets = [(grams(one), grams(other)) for one, other in zip(a, b, strict=True)]
    return all(len(x & y) >= threshold * len(x | y) for x, y in sets)


def later_ones(frames: Iterator[pl.DataFrame], again: Iterator[pl.DataFrame], threshold: float) -> np.ndarray:
    """(N,) bool over all rows of `frames`: those alike to an earlier row that stays.

    `again` gives the same frames a second time, for their texts.
    """
    table = np.concatenate([bands(texts(frame)) for frame in frames])
    pairs = sorted(candidates(table), key=lambda pair: (pair[1], pair[0]))
    wanted, known, start = {row for pair in pairs for row in pair}, {}, 0
    for frame in again:
        here = [row - start for row in wanted if start <= row < start + len(frame)]
        known |= {start + at: texts for at, texts in zip(here, texts(frame)[here].iter_rows(), strict=True)}
        start += len(frame)
    dropped = np.zeros(len(table), bool)
    for earlier, later in pairs:
        if not dropped[earlier] and not dropped[later]:
            dropped[later] = alike(known[earlier], known[later], threshold)
    return dropped
