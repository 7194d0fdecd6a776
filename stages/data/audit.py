"""Say of every set in the mix where it came from, what each rule took, and what its pairs are like beside the paper's
Table 5.

Reads   mixed: pairs of every set; account: what `prepare` and `filter` counted of every set; model: the base model,
        for its tokenizer
Writes  metrics: {set: dataset, revision, licence; rows read, pairs made, pairs kept; the paper's pairs, the difference
        and why; drops by rule; mean tokens of prompt, chosen and rejected, and how often chosen is the longer, by
        tokens}
Params  audit.rows, of each set whose tokens are counted, those that come first by a hash of the id
Source  RLHF Workflow, arXiv 2405.07863, Table 5
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.data import overlap, pair_format


def sample(mixed: Path, rows: int) -> pl.DataFrame:
    """Of every set the rows whose ids come first by hash, at most so many, with the texts of both sides."""
    found = pl.DataFrame()
    texts = {name: overlap.text(name) for name in ("prompt", "chosen", "rejected")}
    for batch in pair_format.stored(mixed):
        frame = pl.DataFrame(pl.from_arrow(batch)).select("source", order=pl.col("id").hash(seed=5), **texts)
        both = pl.concat([found, frame] if len(found) else [frame])
        found = both.sort("source", "order").group_by("source", maintain_order=True).head(rows)
    return found


def lengths(texts: pl.Series, tokenizer: Any) -> np.ndarray:
    """Tokens of each text (N,), special ones left out."""
    encodings = tokenizer.encode_batch_fast(texts.to_list(), add_special_tokens=False)
    return np.array([len(encoding.ids) for encoding in encodings])


def likeness(pairs: pl.DataFrame, tokenizer: Any) -> dict[str, float]:
    """What one set's pairs are like."""
    prompt, chosen, rejected = (lengths(pairs[name], tokenizer) for name in ("prompt", "chosen", "rejected"))
    means = {
        "prompt_tokens": prompt.mean(),
        "chosen_tokens": chosen.mean(),
        "rejected_tokens": rejected.mean(),
        "longer_is_chosen": (chosen > rejected).mean(),
    }
    return {"rows_measured": len(pairs), **{name: round(float(value), 4) for name, value in means.items()}}


def entry(told: dict[str, Any]) -> dict[str, Any]:
    """A set's account in the order in which it is read; of a set that the paper has, the difference and why."""
    made = told["prepared"]
    fact = {name: made[name] for name in ("dataset", "revision", "licence", "rows_read")}
    fact |= {"pairs_made": made["rows_out"], "pairs_kept": told["rows_out"]}
    if made["paper_pairs"]:
        difference = told["rows_out"] - made["paper_pairs"]
        why = made["differs"] or "the filter's rules"
        fact |= {"paper_pairs": made["paper_pairs"], "difference": difference, "why": why}
    return fact | {"drops": made["drops"] | told["drops"]}


def main(params: Any, mixed: Path, account: Path, model: Path, *, metrics: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    told = json.loads(account.read_text(encoding="utf-8"))
    alike = {
        pairs["source"][0]: likeness(pairs, tokenizer)
        for pairs in sample(mixed, params.audit.rows).partition_by("source", maintain_order=True)
    }
    entries = {name: entry(told[name]) | alike.get(name, {}) for name in told}
    metrics.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    kept, of = (sum(account[count] for account in told.values()) for count in ("rows_out", "rows_in"))
    print(f"audit: {len(told)} sets, {kept:,} of {of:,} pairs kept")
