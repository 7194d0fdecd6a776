"""Every trainer on two processes, by DDP and by DeepSpeed's ZeRO, against the same training on one.

Run     python -m tests.trust.layouts [trainer ...]     (or: make layouts)
Prints  a Markdown table for docs/scale.md: by how much the loss of a step differs, at most, and how far apart the
        weights end, as a share of the way that training moved them

Seven rows in steps of four, two a process: the second step has two rows on the one and one on the other. The model's
head is tied to its embedding, or is a tensor of its own; either has 2,048 ids, since ZeRO-3 leaves a tensor of fewer
than 100,000 weights whole. Every tensor that one process saves, two save under its name and in its shape.
"""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from stages.pairs import offline
from stages.training import reference
from tests.conftest import bring_tiny_model, copy_tree, distance, pairs, sh
from tests.test_models import weights
from tests.test_steps import with_unused_ids

PAIRS, HISTORY = "pairs.parquet", "history.parquet"
TRAINERS = {
    "sft": ("sft", f"--demonstrations {PAIRS} --policy"),
    "reward_model": ("reward_model", f"--train {PAIRS} --member 0 --reward"),
    "preference_model": ("preference_model", f"--train {PAIRS} --preference"),
    "dpo": ("dpo", f"--sampled model --reference model --history {HISTORY} --policy"),
    "lora": ("dpo", f"--sampled model --reference model --history {HISTORY} --policy"),
}
"""The stage's module and its options."""
LAYOUTS = {"DDP": 0, "ZeRO-1": 1, "ZeRO-2": 2, "ZeRO-3": 3}
HEADS = {"tied": True, "its own": False}
NUMBERS = "learning_rate=1.0e-4 epochs=2 global_batch_rows=4 max_tokens=256 warmup_share=0.0"
SETTINGS = "seed=1 sft.rows=null sft.packing=false preference_model.packing=false prompts.max_tokens=100 "
SETTINGS += "reward_model.validation_share=0.0 reward_model.evaluations=0 runtime.micro_batch_rows=2"
NEAR = {"float32": (1e-4, 0.01), "bfloat16": (1e-3, 0.05)}
"""How far losses may be apart, in nats, and weights, as a share of the way; bfloat16 keeps 8 bits of a number."""
HEADER = """\
| trainer | dtype | head | layout | tensors | losses differ by at most | weights, share of the way |
|---|---|---|---|---:|---:|---:|"""


def compose(clone: Path, dtype: str, processes: int, deepspeed: int, lora_rank: int) -> None:
    layout = f"dtype={dtype} runtime.processes={processes} runtime.deepspeed={deepspeed} dpo.lora_rank={lora_rank}"
    stages = {stage for stage, _ in TRAINERS.values()}
    numbers = [f"{stage}.{number}" for stage in sorted(stages) for number in NUMBERS.split()]
    done = sh(f"python -m stages.tools.profile smoke {layout} {SETTINGS} {' '.join(numbers)}", clone)
    if done.returncode:
        sys.exit(done.stderr)


def trained(clone: Path, trainer: str, out: str) -> tuple[list[float], dict]:
    """The loss of every step, and the weights, as float32."""
    stage, options = TRAINERS[trainer]
    writes = f"{out} --curve {out}.csv --metrics {out}.json"
    done = sh(f"python -m stages.guard.run training.{stage} --model model {options} {writes}", clone)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return list(pd.read_csv(clone / f"{out}.csv")["loss"]), in_float32(clone / out)


def in_float32(folder: Path) -> dict:
    return {name: tensor.float() for name, tensor in weights(folder).items()}


def compared(clone: Path, trainer: str, dtype: str) -> Iterator[tuple[str, int, float, float]]:
    """Of every layout its name, the number of tensors, how far losses are apart at most, and the weights that the
    model began with, as a share of their way.
    """
    rank = 4 if trainer == "lora" else 0
    compose(clone, dtype, 1, 0, rank)
    losses, one = trained(clone, trainer, "one")
    start = in_float32(clone / "model")
    begun = {name: one[name] for name in one.keys() & start.keys()}  # a reward model's head is new
    for name, deepspeed in LAYOUTS.items():
        compose(clone, dtype, 2, deepspeed, rank)
        others, two = trained(clone, trainer, "two")
        assert {k: v.shape for k, v in two.items()} == {k: v.shape for k, v in one.items()}
        apart = max(abs(a - b) for a, b in zip(losses, others, strict=True))
        yield name, len(two), apart, distance(begun, two) / distance(begun, start)


def prepare(clone: Path, tiny: Path, tied: bool, dtype: str) -> None:
    """The model, and pairs with its log-probabilities."""
    sh("rm -rf model", clone)
    model = with_unused_ids(tiny, clone / "model", tied, dtype)
    pq.write_table(pa.Table.from_pylist(pairs(7), offline.SCHEMA), clone / PAIRS)
    runtime = SimpleNamespace(threads=2, forward_batch_tokens=256)
    params = SimpleNamespace(dtype=dtype, runtime=runtime, dpo=SimpleNamespace(quantized=False))
    reference.main(params, model, clone / PAIRS, reference=clone / HISTORY)


def main() -> None:
    chosen, wrong = sys.argv[1:] or list(TRAINERS), 0
    if strange := set(chosen) - TRAINERS.keys():
        sys.exit(f"layouts: {sorted(strange)} are no trainers; name some of {', '.join(TRAINERS)}")
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        clone = copy_tree(Path(folder, "clone"))
        with contextlib.redirect_stdout(sys.stderr):
            tiny = bring_tiny_model(Path(folder, "tiny"), number=1)
        for (head, tied), dtype in product(HEADS.items(), NEAR):
            with contextlib.redirect_stdout(sys.stderr):
                prepare(clone, tiny, tied, dtype)
            for trainer in chosen:
                for layout, tensors, apart, share in compared(clone, trainer, dtype):
                    told = trainer, dtype, head, layout, tensors, f"{apart:.1e}", f"{share:.4f}"
                    print(f"| {' | '.join(map(str, told))} |", flush=True)
                    wrong += apart > NEAR[dtype][0] or share > NEAR[dtype][1]
    if wrong:
        sys.exit(f"{wrong} rows are farther apart than {NEAR}")


if __name__ == "__main__":
    main()
