"""Split the mix by prompt: what trains, and what only measures the reward model.

Reads   mixed: pairs of every set; account: its keys name every set
Writes  train, heldout: the same columns; no prompt stands in both. metrics: {set: its rows on either side}
Params  split.heldout_share, share of prompts
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from stages.data import overlap, pair_format


def is_heldout(keys: list[str], share: float) -> np.ndarray:
    """(N,) bool, decided by a hash of each prompt, so that all its pairs fall on one side and new rows move no old
    ones.
    """
    hashes = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") for key in keys]
    return np.array([hashed < share * 2**32 for hashed in hashes], bool)


def main(params: Any, mixed: Path, account: Path, *, train: Path, heldout: Path, metrics: Path) -> None:
    rows = {source: {"train": 0, "heldout": 0} for source in json.loads(account.read_text(encoding="utf-8"))}
    with (
        pq.ParquetWriter(train, pair_format.SCHEMA) as for_train,
        pq.ParquetWriter(heldout, pair_format.SCHEMA) as for_heldout,
    ):
        for batch in pair_format.stored(mixed):
            prompts = pl.DataFrame(pl.from_arrow(batch.select(["prompt"])))
            keys = prompts.select(overlap.prompt_key()).to_series().to_list()
            held = is_heldout(keys, params.split.heldout_share)
            for name, writer, mask in (("train", for_train, ~held), ("heldout", for_heldout, held)):
                part = batch.select(pair_format.SCHEMA.names).filter(mask)
                writer.write_batch(part)
                for source, count in pl.Series(part["source"]).value_counts().iter_rows():
                    rows[source][name] += count
    total = {name: sum(row[name] for row in rows.values()) for name in ("train", "heldout")}
    if not all(total.values()):
        sides = f"{total['train']} to train and {total['heldout']} held out"
        raise ValueError(f"{sum(total.values())} pairs leave {sides}, both need some; change split.heldout_share")
    metrics.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(f"split: {total['train']:,} pairs train, {total['heldout']:,} are held out, of {len(rows)} sets")
