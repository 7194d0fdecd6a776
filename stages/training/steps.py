"""Which rows make each optimiser step, for every trainer: the same ones on any layout and after a kill, each counted
once and as much as the others.

Left to themselves, transformers and accelerate do three things that change the science with the layout. A run of
several processes that goes on in a later epoch gets the first epoch's order. Where an epoch's last rows do not fill a
micro-batch on every process, others are trained on twice: here a blank row fills up, which weighs nothing. A last
micro-batch with fewer rows weighs as much as a full one, so that its rows weigh more.
"""

from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

BLANK = "blank"
"""The column that marks the row which fills up, and in a batch of nothing else the key that says so."""


def missing(rows: int, micro: int, processes: int) -> int:
    """How many rows an epoch lacks for a whole micro-batch on every process.

    None on one process, whose last micro-batch may be smaller.
    """
    return 0 if processes == 1 else -rows % (micro * processes)


def filled(data: Any, settings: Any) -> Any:
    """The data set, with one row more where the processes cannot share the rows evenly: a copy of the first, marked.

    `settings` are the trainer's, which know the micro-batch and how many processes there are.
    """
    from datasets import concatenate_datasets

    if not missing(len(data), settings.per_device_train_batch_size, settings.world_size):
        return data
    blank = data.select([0]).add_column(BLANK, [True])
    return concatenate_datasets([data.add_column(BLANK, [False] * len(data)), blank])


def order(lengths: list[int], batch: int, seed: int, epoch: int) -> list[int]:
    """One epoch's rows: the shuffle that transformers would draw, then longest first within each global batch of
    `batch` rows.

    The same rows make each optimiser step on any layout: the sort changes nothing but the padding.
    """
    import torch

    rows = len(lengths)
    drawn = torch.randperm(rows, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
    return [i for k in range(0, rows, batch) for i in sorted(drawn[k : k + batch], key=lambda i: -lengths[i])]


class Order:
    """An epoch's order as a sampler, and behind it the blank row, which stands last in the data set, as often as it is
    needed.

    It reads the epoch off the steps done, since accelerate 1.15 tells it to no sampler of a run that goes on.
    """

    def __init__(self, lengths: list[int], blanks: int, batch: int, seed: int, done: Callable[[], int]) -> None:
        self.lengths, self.blanks, self.batch, self.seed, self.done = lengths, blanks, batch, seed, done

    def __len__(self) -> int:
        return len(self.lengths) + self.blanks

    def __iter__(self) -> Iterator[int]:
        rows = len(self.lengths)
        steps = -(-rows // self.batch)
        yield from order(self.lengths, self.batch, self.seed, self.done() // steps)
        yield from [rows] * self.blanks


def without_blanks(collate: Callable[[list[dict]], dict]) -> Callable[[list[dict]], dict]:
    """A collator that leaves blank rows out; a micro-batch of nothing else keeps one, with no label or under a mark."""
    import torch

    def collated(rows: list[dict]) -> dict:
        real = [row for row in rows if not row.get(BLANK)]
        plain = [{name: value for name, value in row.items() if name != BLANK} for row in real or rows[:1]]
        batch = collate(plain)
        if not real and "labels" in batch:
            batch["labels"] = torch.full_like(batch["labels"], -100)
        elif not real:
            batch[BLANK] = True
        return batch

    return collated


def gathering_any_length(accelerator: Any) -> Callable[[Any], Any]:
    """accelerator.gather, but a process may have fewer rows of a tensor than another, as where it had blank ones.

    TRL gathers its metrics row by row.
    """
    import torch

    gather = accelerator.gather

    def gathered(tensor: Any) -> Any:
        if not tensor.dim():
            return gather(tensor)
        lengths = gather(torch.tensor([len(tensor)], device=tensor.device)).tolist()
        parts = gather(accelerator.pad_across_processes(tensor)).chunk(len(lengths))
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    return gathered


class Ordered:
    """Mixed into a trainer: its rows come in the order above; where they have a `length`, in tokens, sorted by it."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if BLANK in self.train_dataset.column_names:
            self.data_collator = without_blanks(self.data_collator)
            self.accelerator.gather = gathering_any_length(self.accelerator)

    def _set_signature_columns_if_needed(self: Any) -> None:
        super()._set_signature_columns_if_needed()  # pyright: ignore[reportAttributeAccessIssue]
        if BLANK not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, BLANK]

    def _get_train_sampler(self: Any, train_dataset: Any = None) -> Any:
        data, args = self.train_dataset, self.args
        rows = len(data) - (BLANK in data.column_names)
        lengths = data["length"][:rows] if "length" in data.column_names else [0] * rows
        micro = args.per_device_train_batch_size
        batch = micro * args.gradient_accumulation_steps * args.world_size
        return Order(lengths, missing(rows, micro, args.world_size), batch, args.seed, lambda: self.state.global_step)


class Weighed(Ordered):
    """Mixed into a trainer whose loss is a mean over a micro-batch's rows: a step's loss is then the mean over the
    step's rows, on whichever process they are.
    """

    mean_rows = 1.0

    def get_batch_samples(self: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        batches, items = super().get_batch_samples(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        self.mean_rows = fmean(map(rows_in, batches)) if batches else 1.0
        if self.args.world_size > 1:
            mine = torch.tensor([self.mean_rows], device=self.args.device)
            self.mean_rows = float(self.accelerator.gather(mine).mean())
        return batches, items

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        weight = rows_in(inputs) / self.mean_rows
        inputs.pop(BLANK, None)
        loss = super().compute_loss(model, inputs, *args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        return loss * weight if model.training else loss


def rows_in(inputs: dict[str, Any]) -> int:
    """Of a micro-batch, or a fixed multiple of it where both sides of a pair are rows of its tensors; 0 where all are
    blank.
    """
    return 0 if BLANK in inputs else len(next(iter(inputs.values())))
