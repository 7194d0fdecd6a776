"""Which rows make each optimiser step, for every trainer: the same ones on any layout and after a kill, each counted
once and as much as the others.

Left to themselves, transformers and accelerate do three things that change the science with the layout. A run of
several processes that goes on in a later epoch gets the first epoch's order. Where an epoch's last rows do not fill a
micro-batch on every process, others are trained on twice instead. A last micro-batch with fewer rows weighs as much as
a full one, so that its rows weigh more.
"""

from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any


def even(rows: int, micro: int, processes: int) -> int:
    """How many of an epoch's rows fill a micro-batch on every process: all on one process, which may have a smaller
    last one.
    """
    return rows if processes == 1 else rows - rows % (micro * processes)


def shared(rows: int, section: Any, runtime: Any) -> int:
    """The same from params. Raises ValueError where that is none."""
    kept = even(rows, min(runtime.micro_batch_rows, section.global_batch_rows), runtime.processes)
    if not kept:
        rule = f"{rows} rows do not fill one micro-batch on each of runtime.processes = {runtime.processes}"
        raise ValueError(f"{rule}; lower it, or runtime.micro_batch_rows = {runtime.micro_batch_rows}")
    return kept


def order(lengths: list[int], kept: int, batch: int, seed: int, epoch: int) -> list[int]:
    """One epoch's rows: the first so many of the shuffle that transformers would draw, then longest first within each
    global batch of `batch` rows.

    The same rows make each whole optimiser step on any layout: the sort changes nothing but the padding, and what is
    left out comes last in the shuffle.
    """
    import torch

    drawn = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(seed + epoch)).tolist()[:kept]
    return [i for k in range(0, kept, batch) for i in sorted(drawn[k : k + batch], key=lambda i: -lengths[i])]


class Order:
    """An epoch's order as a sampler: it reads the epoch off the steps done, since accelerate 1.15 tells it to no
    sampler of a run that goes on.
    """

    def __init__(self, lengths: list[int], kept: int, batch: int, seed: int, done: Callable[[], int]) -> None:
        self.lengths, self.kept, self.batch, self.seed, self.done = lengths, kept, batch, seed, done

    def __len__(self) -> int:
        return self.kept

    def __iter__(self) -> Iterator[int]:
        return iter(order(self.lengths, self.kept, self.batch, self.seed, self.done() // -(-self.kept // self.batch)))


class Ordered:
    """Mixed into a trainer: its rows come in the order above; where they have a `length`, in tokens, sorted by it."""

    def _get_train_sampler(self: Any, train_dataset: Any = None) -> Any:
        data, args = self.train_dataset, self.args
        lengths = data["length"] if "length" in data.column_names else [0] * len(data)
        micro = args.per_device_train_batch_size
        kept, batch = (
            even(len(data), micro, args.world_size),
            micro * args.gradient_accumulation_steps * args.world_size,
        )
        return Order(lengths, kept, batch, args.seed, lambda: self.state.global_step)


class Weighed(Ordered):
    """Mixed into a trainer whose loss is a mean over a micro-batch's rows: a step's loss is then the mean over the
    step's rows.
    """

    mean_rows = 1.0

    def get_batch_samples(self: Any, *args: Any, **kwargs: Any) -> Any:
        batches, items = super().get_batch_samples(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        self.mean_rows = fmean(map(rows_in, batches)) if batches else 1.0
        return batches, items

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        return loss * (rows_in(inputs) / self.mean_rows) if model.training else loss


def rows_in(inputs: dict[str, Any]) -> int:
    """Of a micro-batch, or a fixed multiple of it where both sides of a pair are rows of its tensors."""
    return len(next(iter(inputs.values())))
