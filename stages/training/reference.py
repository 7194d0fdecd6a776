"""Compute log pi_0 of both sides of every new pair, once: no later iteration, and no other beta, loss or rate, needs a
reference forward again.

Reads   model: the reference, pi_0 unless an iteration names another; pairs: an iteration's own, or D_off
Writes  reference: the pairs with ref_chosen_logps and ref_rejected_logps (float64; sums over the answer's tokens,
        nats), and two hashes that `dpo` checks: ref_model of the model folder, ref_tokens of the pair's token ids
        (stages/training/digest.py)
Params  dtype, dpo.quantized: the weights are as the trainer has them, or pi_0's margin to itself would not be zero. In
        bfloat16 they are float32 under autocast (with bfloat16 weights the margin was off by 0.44 nats, mean of 24
        pairs of SmolLM2-135M; under autocast by the 0.03 that another batch makes); beneath an adapter of QLoRA they
        are in 4 bits (with whole ones a first loss was 6.6 instead of 0.69)
Source  RLHF Workflow, arXiv 2405.07863, Algorithm 2: the reference is pi_0 in every iteration
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from stages import chat, rows, shards
from stages.signals import batching, forward
from stages.training import digest, quantized

LOGPS = pa.schema([("ref_chosen_logps", pa.float64()), ("ref_rejected_logps", pa.float64())])
DIGESTS = pa.schema([("ref_model", pa.string()), ("ref_tokens", pa.string())])
CHUNK = batching.MIXED_CHUNK // 2
"""Pairs dealt together; each is two sequences, batched with those of other pairs."""


@dataclass(frozen=True)
class Reference:
    """A worker: pairs to log pi_0 of both sides."""

    model: Path
    dtype: str
    quantized: bool
    layout: batching.Layout
    columns: ClassVar[pa.Schema] = LOGPS

    def load(self) -> rows.Work:
        import torch

        options = quantized.options(self.dtype) if self.quantized else {}
        tokenizer = chat.load_tokenizer(self.model)
        device, half = "cuda" if torch.cuda.is_available() else "cpu", self.dtype == "bfloat16"
        with torch.autocast(device, torch.bfloat16, enabled=half):
            values = forward.logprobs(self.model, "float32", self.layout, alone=False, **options)

        def log_pi0(pairs: list[dict], tick: rows.Tick) -> list[dict]:
            answers = [side(pair, name) for name in ("chosen", "rejected") for pair in pairs]
            with torch.autocast(device, torch.bfloat16, enabled=half):
                tokens, names = forward.tokenized(tokenizer, answers), [answer["id"] for answer in answers]
                found = values(tokens, names, by_pairs(tick))
            chosen, rejected = found[: len(pairs)], found[len(pairs) :]
            return [
                pair | {"ref_chosen_logps": one, "ref_rejected_logps": other}
                for pair, one, other in zip(pairs, chosen, rejected, strict=True)
            ]

        return log_pi0


def by_pairs(tick: rows.Tick) -> rows.Tick:
    """Told of sides, it tells of whole pairs."""
    told = 0

    def sides(number: float) -> None:
        nonlocal told
        tick((told + number) // 2 - told // 2)
        told += number

    return sides


def side(pair: dict, name: str) -> dict:
    """A pair's chosen or rejected answer as a row to score."""
    answer = {"completion": pair[name][0]["content"], "finished": pair[f"{name}_finished"]}
    return {"id": pair["id"], "prompt": pair["prompt"], **answer}


def main(params: Any, model: Path, pairs: Path, *, reference: Path) -> None:
    table = pq.read_table(pairs)
    worker = Reference(model, params.dtype, params.dpo.quantized, batching.layout(params.runtime))
    (made,) = rows.mapped([table.to_pylist()], worker, "reference", CHUNK, key=("id",))
    of = digest.model(model, params.dpo.quantized)
    table = shards.widened(table, made, LOGPS)
    tokenizer = chat.load_tokenizer(model)
    tokens = [digest.tokens(chat.pair_ids(tokenizer, row)) for row in table.to_pylist()]
    digests = [{"ref_model": of, "ref_tokens": hashed} for hashed in tokens]
    pq.write_table(shards.widened(table, digests, DIGESTS), reference)
    sums = [row[name] for row in made for name in LOGPS.names]
    mean = f", mean {fmean(sums):.1f} nats a side" if sums else ""
    print(f"reference: log pi_0 of {len(made)} pairs by {model} ({of[:8]}){mean}")
