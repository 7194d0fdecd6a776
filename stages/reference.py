"""Compute log pi_0 of both sides of every pair, once: changing beta, the loss or the rate needs no reference forward again.

Reads   model: pi_0; history: pairs
Writes  reference: id, made_in, ref_chosen_logps, ref_rejected_logps (float64; sums over the answer's tokens, nats)
Params  dtype
Source  RLHF Workflow, arXiv 2405.07863, Algorithm 2: the reference is pi_0 in every iteration
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages import forward


def main(params: Any, model: Path, history: Path, *, reference: Path) -> None:
    pairs = pq.read_table(history).to_pylist()
    values = forward.logprobs(model, forward.sides(model, pairs), params.dtype, params.runtime, "reference")
    names = {"id": [row["id"] for row in pairs], "made_in": [row["made_in"] for row in pairs]}
    pq.write_table(pa.table({**names, "ref_chosen_logps": values[: len(pairs)], "ref_rejected_logps": values[len(pairs) :]}), reference)
    print(f"reference: log pi_0 of {len(pairs)} pairs, mean {sum(values) / len(values):.1f} nats a side")
