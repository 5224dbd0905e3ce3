"""The curriculum of a constructed dataset: one stage after the other, each for some epochs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

from dpo.data.constructed_schema import STAGE
from dpo.data.dataset import PairDataset
from model.data.batches import BucketBatchSampler, Steps
from model.data.latent_dataset import batch_sampler
from model.javisdit.network.config import JointDiTConfig


class Curriculum:
    """The pairs of a dataset by epoch: those of stage 0 for `stage_epochs` epochs, then those of stage 1, and so on.

    The last stage stays. The pairs of an epoch are a function of the epoch alone, so a resumed run goes on in its
    stage. As with every sampler of batches, the first epoch decides the number of batches: where a later stage has
    more pairs, some are left out of each of its epochs, others in each.
    """

    def __init__(self, dataset: PairDataset, stage_epochs: int) -> None:
        """Read the stages of the pairs.

        Raises:
            ValueError: the dataset has no stages.
        """
        if STAGE not in dataset.rows.column_names:
            raise ValueError(
                f"stage_epochs is {stage_epochs}, but {dataset.source} has no stages: make its pairs with `python -m "
                "dpo.construct`, or leave stage_epochs out."
            )
        self._dataset = dataset
        self._stages = dataset.rows.with_format(None)[STAGE][:]
        self._order = sorted(set(self._stages))
        self._stage_epochs = stage_epochs

    @property
    def first_epoch_of_last_stage(self) -> int:
        return (len(self._order) - 1) * self._stage_epochs

    def labels(self, epoch: int) -> Sequence[Hashable]:
        """Return the label of each pair, None for the pairs of other stages than the epoch's."""
        stage = self._order[min(epoch // self._stage_epochs, len(self._order) - 1)]
        labels = zip(self._dataset.labels(epoch), self._stages, strict=True)
        return [label if own == stage else None for label, own in labels]

    def num_tokens(self, label: Any, config: JointDiTConfig) -> int:
        """Return the number of tokens of one pair with this label."""
        return self._dataset.num_tokens(label, config)

    def batch_size(self, label: Any) -> int | None:
        """Return None, as pairs do."""
        return self._dataset.batch_size(label)


def training_sampler(dataset: PairDataset, args: Any, config: JointDiTConfig, num_processes: int) -> BucketBatchSampler:
    """Return the sampler of a training run: all pairs in every epoch, or the curriculum that `stage_epochs` asks for.

    Raises:
        ValueError: no stages, or a run that ends before the last of them.
    """
    if args.stage_epochs is None:
        return batch_sampler(dataset, args, config)
    curriculum = Curriculum(dataset, args.stage_epochs)
    sampler = batch_sampler(curriculum, args, config)
    steps = Steps.of(len(sampler), num_processes, args)
    needed = curriculum.first_epoch_of_last_stage
    if math.ceil(steps.total / steps.per_epoch) <= needed:
        raise ValueError(
            f"The run has {steps.total} steps, {steps.per_epoch} an epoch, and ends before the last stage of its "
            f"curriculum, which begins after {needed} epochs: raise num_train_epochs to {needed + args.stage_epochs} "
            f"(or max_steps to {steps.per_epoch * (needed + args.stage_epochs)}), or lower stage_epochs."
        )
    return sampler
