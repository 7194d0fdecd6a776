"""Compute log pi_0 of both sides of every new pair, once: no later iteration, and no other beta, loss or rate, needs a
reference forward again.

Reads   model: the reference, pi_0 unless an iteration names another; pairs: an iteration's own, or D_off
Writes  reference: the pairs with ref_chosen_logps and ref_rejected_logps (float64; sums over the answer's tokens,
        nats), and two hashes that `dpo` checks: ref_model of the model folder, ref_texts of the pair
        (stages/training/digest.py)
Params  dtype, dpo.quantized: the weights are as the trainer has them, or pi_0's margin to itself would not be zero. In
        bfloat16 they are float32 under autocast (with bfloat16 weights the margin was off by 0.44 nats, mean of 24
        pairs of SmolLM2-135M; under autocast by the 0.03 that another batch makes); beneath an adapter of QLoRA they
        are in 4 bits (with whole ones a first loss was 6.6 instead of 0.69)
Source  RLHF Workflow, arXiv 2405.07863, Algorithm 2: the reference is pi_0 in every iteration
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.signals import forward
from stages.training import digest, quantized


def log_pi0(model: Path, rows: list[dict], params: Any) -> list[float]:
    """Of every chosen side, then of every rejected one."""
    import torch

    options = quantized.options(params.dtype) if params.dpo.quantized else {}
    with torch.autocast(
        "cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16, enabled=params.dtype == "bfloat16"
    ):
        return forward.logprobs(model, forward.sides(model, rows), "float32", params.runtime, "reference", **options)


def main(params: Any, model: Path, pairs: Path, *, reference: Path) -> None:
    table = pq.read_table(pairs)
    rows = table.to_pylist()
    values = log_pi0(model, rows, params) if rows else []
    of = digest.model(model, params.dpo.quantized)
    for name, column in (
        ("ref_chosen_logps", pa.array(values[: len(rows)], pa.float64())),
        ("ref_rejected_logps", pa.array(values[len(rows) :], pa.float64())),
        ("ref_model", pa.array([of] * len(rows), pa.string())),
        ("ref_texts", pa.array([digest.pair(row) for row in rows], pa.string())),
    ):
        table = table.append_column(name, column)
    pq.write_table(table, reference)
    print(
        f"reference: log pi_0 of {len(rows)} pairs by {model} ({of[:8]}), mean {sum(values) / max(1, len(values)):.1f} nats a side"
    )
