"""Batches of candidates that keep the groups of a prompt together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from model.data.batches import BucketBatchSampler, RowKey

Group = list[int]  # rows of one prompt


class GroupBatchSampler(BucketBatchSampler):
    """Sampler of batches of candidates of one shape, in which a group's members follow each other.

    With `whole`, a batch holds whole groups, or one of the equal parts into which a group is cut; the parts are in
    consecutive batches, so that steps of `batches_per_step` batches see whole groups. Else batches of the given size
    are cut from the sequence of groups. Order is a function of (seed, epoch) alone.
    """

    def __init__(
        self,
        labels: Sequence[Hashable],
        groups: Sequence[Hashable],
        batch_size: Callable[[Any], int],
        seed: int = 0,
        drop_last: bool = False,
        *,
        whole: bool = False,
        fit: bool = False,
    ) -> None:
        """Create the sampler.

        Args:
            labels: label of each row; None: the row is not used.
            groups: group of each row.
            batch_size: returns the number of rows in a batch of a label.
            seed: seed of the order.
            drop_last: drop batches that are not full; with `whole`, batches that lack a group.
            whole: keep groups whole or in equal parts.
            fit: with `whole`, reduce batch sizes to whole groups or equal parts; else other sizes are refused.

        Raises:
            ValueError: no batch can be made, or the batch size would cut groups unevenly.
        """
        self.whole = whole
        self._groups = groups
        self._sizes = _largest_groups(labels, groups)
        sizes = {label: batch_size(label) for label in self._sizes}
        if whole:
            sizes = {label: _even(rows, self._sizes[label], fit) for label, rows in sizes.items()}
        super().__init__(lambda _: labels, sizes.__getitem__, seed, drop_last)

    @property
    def batches_per_step(self) -> int:
        """The number of consecutive batches in which every group is whole; 1 if batches hold whole groups."""
        return math.lcm(*(self._num_parts(label) for label in self._sizes))

    def _num_parts(self, label: Hashable) -> int:
        return max(self._sizes[label] // self.rows_in_batch(label), 1) if self.whole else 1

    def _batches(self, epoch: int) -> list[list[RowKey]]:
        rng = np.random.default_rng([self.seed, epoch])
        steps: list[list[Group]] = []  # batches of one step
        rest: list[list[Group]] = []  # groups that would shift the steps after them
        for label, members in self._by_label(epoch).items():
            groups = [rng.permutation(members[number]).tolist() for number in rng.permutation(len(members))]
            parts, count = self._num_parts(label), self.batches_per_step // self._num_parts(label)
            units = self._units(groups, label)
            whole = [unit for unit in units if len(unit) == parts]
            num_steps = len(whole) // count
            steps += [
                [rows for unit in whole[number * count : (number + 1) * count] for rows in unit]
                for number in range(num_steps)
            ]
            rest += whole[num_steps * count :] + [unit for unit in units if len(unit) != parts]
        ordered = [steps[number] for number in rng.permutation(len(steps))] + rest
        return [[RowKey(row, epoch) for row in rows] for unit in ordered for rows in unit]

    def _by_label(self, epoch: int) -> dict[Hashable, list[Group]]:
        found: dict[Hashable, dict[Hashable, Group]] = {}
        for row, (label, group) in enumerate(zip(self.labels(epoch), self._groups, strict=True)):
            if label is not None:
                found.setdefault(label, {}).setdefault(group, []).append(row)
        return {label: list(groups.values()) for label, groups in found.items()}

    def _units(self, groups: list[Group], label: Hashable) -> list[list[Group]]:
        """Return the batches of a label; those of one group, or the one of several groups, are a unit."""
        size, largest = self.rows_in_batch(label), self._sizes[label]
        if not self.whole:
            return [[rows] for rows in self._split([row for group in groups for row in group], size)]
        if size < largest:
            parts = [np.array_split(group, largest // size) for group in groups]
            return [[part.tolist() for part in of_group if len(part)] for of_group in parts]
        count = size // largest
        chunks = [groups[start : start + count] for start in range(0, len(groups), count)]
        kept = [chunk for chunk in chunks if len(chunk) == count or self.keep_rest]
        return [[[row for group in chunk for row in group]] for chunk in kept]


def _largest_groups(labels: Sequence[Hashable], groups: Sequence[Hashable]) -> dict[Hashable, int]:
    """Return the size of the largest group of each label."""
    counts = Counter((label, group) for label, group in zip(labels, groups, strict=True) if label is not None)
    sizes: dict[Hashable, int] = {}
    for (label, _), count in counts.items():
        sizes[label] = max(sizes.get(label, 0), count)
    return sizes


def _even(rows: int, group: int, fit: bool) -> int:
    """Return the rows of a batch that holds whole groups, or one of the equal parts of a group.

    Raises:
        ValueError: without `fit`, for a number of rows that would cut groups unevenly.
    """
    if rows % group == 0 or group % rows == 0:
        return rows
    if not fit:
        raise ValueError(
            f"per_device_train_batch_size is {rows}, but groups have {group} candidates, and with shared_draws batches "
            f"hold whole groups or equal parts of one: give a multiple or a divisor of {group}, or set shared_draws "
            "to false."
        )
    if rows > group:
        return rows - rows % group
    return max(part for part in range(1, rows + 1) if group % part == 0)
