"""When two texts count as the same: prompts by folding, a prompt and a benchmark by a shared phrase.

`filter`, `split`, `prompts`, `demonstrations` and `phrases` share it: that train, held-out, test and benchmarks
hold no prompt in common rests on one definition.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from stages import words

MESSAGE = pl.element().struct


class Phrases(NamedTuple):
    """The evaluation sets' phrases: sorted uint64 hashes (N,), and how many words a phrase has."""

    hashes: np.ndarray
    words: int


def prompt_key(prompt: pl.Expr | None = None) -> pl.Expr:
    """Prompts (messages; the column `prompt` unless another is given) as text with case and spacing folded: what makes
    two prompts the same one.
    """
    spacing = r"[^\S ]\s*| \s+"  # as \s+, but for single spaces, which are left where they are: five times as fast
    text = MESSAGE.field("content").str.to_lowercase().str.replace_all(spacing, " ").str.strip_chars()
    turns = pl.col("prompt") if prompt is None else prompt
    said = pl.concat_str(MESSAGE.field("role").fill_null("?"), pl.lit(": "), text.fill_null(""))
    return turns.list.eval(said).list.join("\n")


def prompt_hash() -> pl.Expr:
    """prompt_key in 64 bits: among ten million prompts a chance of 3e-6 that two share one."""
    return prompt_key().hash(seed=1)


def question_hash() -> pl.Expr:
    """The same without system messages, behind which no test prompt may hide."""
    return prompt_key(pl.col("prompt").list.filter(MESSAGE.field("role").ne_missing("system"))).hash(seed=1)


def questions(files: list[Path]) -> pl.Series:
    """question_hash of every prompt in the files."""
    prompts = [pl.DataFrame(pl.from_arrow(pq.read_table(file, columns=["prompt"]))) for file in files]
    return pl.concat([frame.select(question_hash()).to_series() for frame in prompts])


def text(messages: str) -> pl.Expr:
    """A column of messages as plain text, one message a line."""
    return pl.col(messages).list.eval(MESSAGE.field("content")).list.join("\n")


def phrases(texts: pl.Series, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(index of the text, uint64 hash) of every phrase of n words, in lower case and without punctuation; a text of
    fewer words is one phrase.
    """
    found = texts.str.to_lowercase().str.extract_all(words.LETTERS_AND_DIGITS).fill_null([])
    counts = found.list.len().to_numpy().astype(np.int64)
    hashes = found.filter(pl.Series(counts > 0)).explode().hash(seed=3).to_numpy()
    index = np.repeat(np.arange(len(texts)), counts)
    left = np.repeat(np.cumsum(counts), counts) - np.arange(len(hashes))  # words from here to the end of the text
    # a polynomial of the words' hashes, modulo 2^64; words past the end of the text count 0
    total = np.zeros(len(hashes), np.uint64)
    for k in range(n):
        ahead = np.zeros(len(hashes), np.uint64)
        ahead[: max(0, len(hashes) - k)] = hashes[k:]
        total = total * np.uint64(0x9E3779B97F4A7C15) + np.where(left > k, ahead, np.uint64(0))
    whole = (left >= n) | ((left == counts[index]) & (counts[index] < n))
    return index[whole], total[whole]


def read_phrases(file: Path) -> Phrases:
    known = pq.read_table(file)
    return Phrases(known["phrase"].to_numpy(), int((known.schema.metadata or {})[b"words"]))


def holds(frame: pl.DataFrame, known: Phrases) -> np.ndarray:
    """Rows (N,) bool whose prompt shares a phrase with an evaluation set."""
    hit = np.zeros(len(frame), bool)
    if len(known.hashes):
        rows, found = phrases(frame.select(text("prompt").fill_null("")).to_series(), known.words)
        at = np.searchsorted(known.hashes, found).clip(max=len(known.hashes) - 1)
        hit[rows[known.hashes[at] == found]] = True
    return hit
