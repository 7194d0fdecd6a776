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
    for batch in pair_format.stored(mixed):
        frame = pl.DataFrame(pl.from_arrow(batch)).select(
            "source", order=pl.col("id").hash(seed=5), prompt=overlap.text("prompt"), chosen=overlap.text("chosen"), rejected=overlap.text("rejected"),
        )  # fmt: skip
        found = (
            pl.concat([found, frame] if len(found) else [frame])
            .sort("source", "order")
            .group_by("source", maintain_order=True)
            .head(rows)
        )
    return found


def lengths(texts: pl.Series, tokenizer: Any) -> np.ndarray:
    """Tokens of each text (N,), special ones left out."""
    return np.array(
        [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts.to_list(), add_special_tokens=False)]
    )


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
    fact = {name: made[name] for name in ("dataset", "revision", "licence", "rows_read")} | {
        "pairs_made": made["rows_out"],
        "pairs_kept": told["rows_out"],
    }
    if made["paper_pairs"]:
        fact |= {
            "paper_pairs": made["paper_pairs"],
            "difference": told["rows_out"] - made["paper_pairs"],
            "why": made["differs"] or "the filter's rules",
        }
    return fact | {"drops": {rule: count for drops in (made["drops"], told["drops"]) for rule, count in drops.items()}}


def main(params: Any, mixed: Path, account: Path, model: Path, *, metrics: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer, told = Tokenizer.from_file(str(model / "tokenizer.json")), json.loads(account.read_text())
    alike = {
        pairs["source"][0]: likeness(pairs, tokenizer)
        for pairs in sample(mixed, params.audit.rows).partition_by("source", maintain_order=True)
    }
    metrics.write_text(json.dumps({name: entry(told[name]) | alike.get(name, {}) for name in told}, indent=2) + "\n")
    print(
        f"audit: {len(told)} sets, {sum(t['rows_out'] for t in told.values()):,} of {sum(t['rows_in'] for t in told.values()):,} pairs kept"
    )
