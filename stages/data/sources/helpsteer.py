"""HelpSteer: answers rated from 0 to 4 in five aspects; every two answers to one prompt are a pair.

Reads   raw: prompt, response, helpfulness, correctness, coherence, complexity, verbosity
Writes  preferences, metrics: see stages/data/pair_format.py; margin: the difference of the scores
Rule    aspects, whose mean is the score
Source  nvidia/HelpSteer, train and validation, CC-BY-4.0. The paper has 37,131 pairs of 8,592 prompts and does not say
        by which score; the mean of aspects, chosen in the mix, is ours.
"""

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from stages.data import pair_format, releases

ASPECTS = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
FIELDS = [("prompt", pa.string()), ("response", pa.string()), *((aspect, pa.int64()) for aspect in ASPECTS)]
RELEASE = releases.Release(
    "helpsteer",
    pa.schema(FIELDS),
    pairs=37_131,
    differs="the paper does not name its score; here the mean of the aspects in the rule",
)


def pairs(raw: pl.DataFrame, aspects: list[str]) -> pl.DataFrame:
    """A rating out of 0 to 4 counts as none."""
    valid = pl.all_horizontal(pl.col(aspects).is_between(0, 4).fill_null(False))
    first = pl.col("row").first().over("prompt")
    answers = raw.select(
        row=first,
        prompt=pair_format.message("user", pl.col("prompt")),
        k=pl.int_range(pl.len()).over("prompt"),
        text="response",
        score=pl.when(valid).then(pl.mean_horizontal(aspects)),
    )
    return pair_format.all_pairs(RELEASE.name, answers)


def main(params: Any, name: str, raw: Path, aspects: list[str], *, preferences: Path, metrics: Path) -> None:
    frames = releases.whole(releases.batches(RELEASE, raw))
    pair_format.prepare(RELEASE, frames, partial(pairs, aspects=aspects), name, raw, preferences, metrics)
