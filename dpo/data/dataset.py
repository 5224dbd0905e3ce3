"""Preference pairs as tensors: the training dataset, its batches, and the random draws of each pair.

The draws of a pair (timestep, noise, text dropout) are a function of (seed, pair_id, epoch) and are made once per
pair. Winner and loser therefore share them by construction, and a pair gets the same draws in any batch, on any
worker, before and after a restart. Different pairs of one prompt have different draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpo.data.prepared import DrawingCollator, PreparedRows, shaped
from dpo.data.regions import Regions, read_regions, stack_regions
from dpo.data.schema import MODALITIES, PAIRS, SIDES
from model.data.batches import RowKey


@dataclass(frozen=True, eq=False)
class Pair:
    """One row of the training dataset.

    Attributes:
        chosen: modality -> latents; video (C, T, H, W), audio (C, T, M), float32.
        rejected: latents of the rejected clip, with the same shapes.
        text: (length, text_dim) float32 embedding of the caption, unpadded.
        num_frames, height, width: geometry of the clip in frames and pixels.
        margin: margin of the ranking, summed over modalities; NaN if there is none.
        regions: where the members differ; None for pairs that may differ anywhere.
    """

    pair_id: str
    prompt_id: str
    epoch: int
    chosen: dict[str, Tensor]
    rejected: dict[str, Tensor]
    text: Tensor
    num_frames: int
    height: int
    width: int
    margin: float
    regions: Regions | None = None

    @property
    def size(self) -> tuple[int, int, int]:
        return self.height, self.width, self.num_frames


class PairDataset(PreparedRows[Pair]):
    """The training dataset of pairs; indexed by `RowKey` or by row number."""

    form = PAIRS
    clips_per_row = 2

    def __getitem__(self, key: RowKey | int) -> Pair:
        number, epoch = key if isinstance(key, tuple) else (key, 0)
        row = self.rows[number]
        chosen, rejected = (
            {name: shaped(row[f"{side}_{name}_latents"], row[f"{name}_latents_shape"]) for name in MODALITIES}
            for side in SIDES
        )
        text = shaped(row["text_embeds"], (row["text_length"], row["text_dim"]))
        num_frames, height, width = (int(row[name]) for name in ("num_frames", "height", "width"))
        ids = str(row["pair_id"]), str(row["prompt_id"])
        margin = float("nan") if row["margin"] is None else float(row["margin"])
        return Pair(*ids, epoch, chosen, rejected, text, num_frames, height, width, margin, read_regions(row))

    def mean_margin(self) -> float:
        """Return the mean of the ranking's margins; `PairCollator` divides margins by it to get weights with mean 1.

        Raises:
            ValueError: if a pair has no margin, or one that is not positive and finite.
        """
        columns = self.rows.select_columns(["pair_id", "margin"]).with_format(None).to_dict()
        for pair_id, margin in zip(columns["pair_id"], columns["margin"], strict=True):
            if margin is None or not 0 < margin < float("inf"):
                raise ValueError(
                    f"{self.source}: pair {pair_id!r} has margin {margin}, but a weight needs a positive one. Pairs "
                    "labelled by people have the margin of the reward models, if any: turn margin_weighting off for "
                    "them."
                )
        return float(np.mean(columns["margin"]))


class PairCollator(DrawingCollator):
    """Stacks pairs of one shape into a batch and makes their draws.

    The batch is a dict: `video`, `audio` (2B, ...) clean latents, chosen first; `video_noise`, `audio_noise` (B, ...)
    and `timestep` (B,) in (0, 1000), one per pair; `text` (B, text_len, text_dim) and `text_mask` (B, text_len) after
    dropout; `text_dropped` (B,); `weight` (B,) float32 of the pairs; `pair_id`, `epoch`, `prompt_id`, `num_frames`.
    Pairs with regions add `masks` and `strength`, see `dpo.data.regions.stack_regions`.
    """

    def __init__(
        self,
        seed: int,
        negative_text: Tensor | None,
        text_dropout: float = 0.1,
        shift_scale: float = 5.0,
        mean_margin: float | None = None,
        text_len: int | None = None,
    ) -> None:
        """Store the settings of the batches; see `DrawingCollator` for the others.

        Args:
            mean_margin: `PairDataset.mean_margin()`, to weight each pair by its margin divided by this mean, so that
                weights have mean 1 over the dataset and the loss keeps its scale; None gives every pair the weight 1,
                as published.
        """
        super().__init__(seed, negative_text, text_dropout, shift_scale, text_len)
        self.mean_margin = mean_margin

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        draws = [self.draw(pair, pair.pair_id, pair.chosen) for pair in pairs]
        clean = {
            name: torch.stack([pair.chosen[name] for pair in pairs] + [pair.rejected[name] for pair in pairs])
            for name in MODALITIES
        }
        return (
            clean
            | self.drawn(pairs, draws)
            | stack_regions([pair.regions for pair in pairs])
            | {
                "weight": torch.tensor([self._weight(pair) for pair in pairs], dtype=torch.float32),
                "pair_id": [pair.pair_id for pair in pairs],
                "prompt_id": [pair.prompt_id for pair in pairs],
            }
        )

    def _weight(self, pair: Pair) -> float:
        return 1.0 if self.mean_margin is None else pair.margin / self.mean_margin
