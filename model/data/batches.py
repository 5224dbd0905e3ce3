"""The sampler of batches of equal shape, shuffled by (seed, epoch) alone: the same before and after a restart."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Sampler


class RowKey(NamedTuple):
    """Index into a dataset: a row, and the epoch that seeds its draws."""

    row: int
    epoch: int


class Steps(NamedTuple):
    """Number of optimiser steps of a run."""

    per_epoch: int  # optimiser steps
    total: int

    @classmethod
    def of(cls, num_batches: int, num_processes: int, args: Any) -> Steps:
        """Return the steps by `transformers.TrainingArguments` for so many batches per epoch over all processes."""
        per_epoch = math.ceil(math.ceil(num_batches / num_processes) / args.gradient_accumulation_steps)
        total = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
        return cls(per_epoch, total)


class BucketBatchSampler(Sampler[list[RowKey]]):
    """Sampler of batches of rows with one label each, so that several geometries train in one epoch.

    Labels may change from epoch to epoch (published buckets are drawn again). The number of batches does not change,
    since a resumed run computes its position from it: an epoch with fewer batches than the first repeats some, one with
    more leaves some out.

    The class has no attribute `batch_size`: accelerate would treat batches of another size as incomplete.
    """

    def __init__(
        self,
        labels: Callable[[int], Sequence[Hashable]],
        batch_size: Callable[[Any], int],
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        """Create the sampler and check that the first epoch has a batch.

        Args:
            labels: returns the label of each row in an epoch; None: the row is not used.
            batch_size: returns the number of rows in a batch of a label.
            seed: seed of the order.
            drop_last: drop batches that are not full, as published; else a label's last batch may be smaller.

        Raises:
            ValueError: no batch can be made.
        """
        self.labels = labels
        self.rows_in_batch = batch_size
        self.seed = seed
        self.keep_rest = not drop_last
        self.epoch = 0
        self._length = len(self._batches(0))
        if not self._length:
            raise ValueError(
                "No batch can be made: no row fits a bucket, or no bucket has a full batch and the rest is dropped; "
                "lower the batch size, set dataloader_drop_last to false, or give other buckets."
            )

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[RowKey]]:
        batches = self._batches(self.epoch)
        if not batches:
            raise ValueError(
                f"Epoch {self.epoch} has no batch: no row fits a bucket; give more clips or other buckets."
            )
        return islice(cycle(batches), self._length)

    def _batches(self, epoch: int) -> list[list[RowKey]]:
        buckets: dict[Hashable, list[int]] = {}
        for row, label in enumerate(self.labels(epoch)):
            if label is not None:
                buckets.setdefault(label, []).append(row)
        rng = np.random.default_rng([self.seed, epoch])
        batches = [
            [RowKey(row, epoch) for row in rows]
            for label, bucket in buckets.items()
            for rows in self._split(rng.permutation(bucket).tolist(), self.rows_in_batch(label))
        ]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _split(self, rows: list[int], size: int) -> list[list[int]]:
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [batch for batch in batches if len(batch) == size or self.keep_rest]
