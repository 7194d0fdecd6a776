"""When two texts count as the same: prompts by folding, a prompt and a benchmark by a shared phrase.

`filter`, `split`, `prompts` and `benchmarks` share it, since that train, held-out, test and benchmarks hold no prompt in common rests on one definition.
"""

import numpy as np
import polars as pl

MESSAGE = pl.element().struct


def prompt_key(prompt: str = "prompt") -> pl.Expr:
    """A column of prompts (messages) as text with case and spacing folded: what makes two prompts the same one."""
    text = MESSAGE.field("content").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.col(prompt).list.eval(pl.concat_str(MESSAGE.field("role"), pl.lit(": "), text)).list.join("\n")


def phrases(texts: pl.Series, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(index of the text, uint64 hash) of every phrase of n words, in lower case and without punctuation; a text of fewer words is one phrase."""
    words = texts.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+").fill_null([])
    counts = words.list.len().to_numpy().astype(np.int64)
    hashes = words.filter(pl.Series(counts > 0)).explode().hash(seed=3).to_numpy()
    index = np.repeat(np.arange(len(texts)), counts)
    left = np.repeat(np.cumsum(counts), counts) - np.arange(len(hashes))  # words from here to the end of the text
    total = np.zeros(len(hashes), np.uint64)
    for k in range(n):  # a polynomial of the words' hashes, modulo 2^64; words past the end of the text count 0
        ahead = np.zeros(len(hashes), np.uint64)
        ahead[: max(0, len(hashes) - k)] = hashes[k:]
        total = total * np.uint64(0x9E3779B97F4A7C15) + np.where(left > k, ahead, np.uint64(0))
    whole = (left >= n) | ((left == counts[index]) & (counts[index] < n))
    return index[whole], total[whole]
