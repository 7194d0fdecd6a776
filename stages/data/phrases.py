"""Collect the phrases of the evaluation sets in use, so that `filter` keeps their prompts out of the training data.

Reads   raw: a folder of .jsonl or .jsonl.gz files, one evaluation set each; of every object the first of FIELDS that
        it has
Writes  phrases: phrase (uint64), sorted, each once; the number of words of a phrase stands in the file's metadata
Params  phrases.words of a phrase
Source  phrases of 13 words: Brown et al. 2020 (GPT-3), appendix C; they are compared with prompts only
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stages.data import jsonl, overlap

FIELDS = ["prompt", "question", "instruction", "text", "turns", "Question"]
"""ARC's question is an object, whose text is `stem`; TruthfulQA's CSV writes Question."""


def texts(file: Path) -> list[str]:
    """The questions of one set. Raises ValueError for an object without one."""
    found = []
    for first, lines in jsonl.chunks(file):
        for number, line in enumerate(lines, first):
            record = jsonl.parsed(line) or {}
            question = next((record[field] for field in FIELDS if record.get(field)), None)
            if question is None:
                told = f"no object with one of the fields {FIELDS}: {line[:80]!r}"
                raise ValueError(f"{file}:{number}: {told}; name the field so, or mend the line")
            asked = question.get("stem") if isinstance(question, dict) else question
            found += asked if isinstance(asked, list) else [asked]
    return found


def main(params: Any, raw: Path, *, phrases: Path) -> None:
    words = params.phrases.words
    sets = [texts(file) for file in sorted(raw.rglob("*")) if file.name.endswith((".jsonl", ".jsonl.gz"))]
    found = [overlap.phrases(pl.Series(questions, dtype=pl.String), words)[1] for questions in sets]
    unique = np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))
    schema = pa.schema([("phrase", pa.uint64())], metadata={"words": str(words)})
    pq.write_table(pa.table({"phrase": unique}, schema=schema), phrases)
    questions = sum(map(len, sets))
    told = f"{questions:,} questions, {len(unique):,} phrases of {words} words"
    print(f"phrases: {len(sets)} evaluation sets, {told}")
