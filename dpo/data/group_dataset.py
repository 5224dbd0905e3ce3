"""Scored candidates as tensors: the training dataset of groups, its batches, and their random draws.

With shared draws, all candidates of a prompt have the same timestep, noise and text dropout in an epoch, a function of
(seed, prompt_id, epoch): the part of their errors that they have in common then cancels in the sum of their centred
advantages. Else each candidate has draws of its own, a function of (seed, candidate_id, epoch).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from dpo.data.groups import RewardColumn, read_rewards
from dpo.data.prepared import DrawingCollator, PreparedRows, shaped
from dpo.data.schema import CANDIDATES, MODALITIES
from model.data.batches import RowKey


@dataclass(frozen=True, eq=False)
class Candidate:
    """One row of the training dataset.

    Attributes:
        row: number of the row.
        latents: modality -> latents; video (C, T, H, W), audio (C, T, M), float32.
        text: (length, text_dim) float32 embedding of the caption, unpadded.
        num_frames, height, width: geometry of the clip in frames and pixels.
    """

    candidate_id: str
    prompt_id: str
    row: int
    epoch: int
    latents: dict[str, Tensor]
    text: Tensor
    num_frames: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int, int]:
        return self.height, self.width, self.num_frames


class GroupDataset(PreparedRows[Candidate]):
    """The training dataset of scored candidates; indexed by `RowKey` or by row number.

    Attributes:
        rewards: reward column -> its direction and modality.
    """

    form = CANDIDATES
    clips_per_row = 1

    def __init__(
        self,
        rows: Dataset,
        negative_text: Tensor | None,
        rewards: Mapping[str, RewardColumn],
        source: str = "the dataset",
        is_finite: bool = False,
    ) -> None:
        """Check the rows and store them; see `PreparedRows` for the other arguments.

        Args:
            rewards: direction and modality of each reward column.

        Raises:
            ValueError: in the cases of `PreparedRows`, if a reward has no column, or if candidates of one prompt have
                different shapes.
        """
        super().__init__(rows, negative_text, source, is_finite)
        self.rewards = dict(rewards)
        missing = [name for name in rewards if name not in rows.column_names]
        if missing or not rewards:
            what = f"lacks the reward columns {', '.join(missing)}" if missing else "names no reward"
            raise ValueError(f"{source} {what}, so candidates cannot be compared: prepare it again.")
        self._check_groups()

    @classmethod
    def _open(cls, folder: Path, rows: Dataset, negative_text: Tensor | None, is_finite: bool) -> Self:
        return cls(rows, negative_text, read_rewards(folder), str(folder), is_finite)

    def __getitem__(self, key: RowKey | int) -> Candidate:
        number, epoch = key if isinstance(key, tuple) else (key, 0)
        row = self.rows[number]
        latents = {name: shaped(row[f"{name}_latents"], row[f"{name}_latents_shape"]) for name in MODALITIES}
        text = shaped(row["text_embeds"], (row["text_length"], row["text_dim"]))
        num_frames, height, width = (int(row[name]) for name in ("num_frames", "height", "width"))
        ids = str(row["candidate_id"]), str(row["prompt_id"])
        return Candidate(*ids, int(number), epoch, latents, text, num_frames, height, width)

    @cached_property
    def prompt_ids(self) -> list[str]:
        """The prompt of each row; rows of one prompt are a group."""
        return self.rows.with_format(None).select_columns("prompt_id").to_dict()["prompt_id"]

    @cached_property
    def scores(self) -> np.ndarray:
        """The scores (N, K) float64 in the order of `rewards`, as they were given; NaN where a score failed."""
        table = self.rows.with_format("arrow").select_columns(list(self.rewards))[:]
        columns = [table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in self.rewards]
        return np.stack(columns, axis=1)

    def _check_groups(self) -> None:
        first: dict[str, tuple[int, ...]] = {}
        for prompt_id, shape in zip(self.prompt_ids, self.shapes, strict=True):
            if first.setdefault(prompt_id, shape) != shape:
                raise ValueError(
                    f"{self.source}: candidates of prompt {prompt_id!r} have different shapes, so they are not "
                    "comparable at the same noise: prepare them again."
                )


class GroupCollator(DrawingCollator):
    """Stacks candidates of one shape into a batch and makes their draws.

    The batch is a dict: `video`, `audio` (B, ...) clean latents; `video_noise`, `audio_noise` (B, ...) and `timestep`
    (B,) in (0, 1000); `advantage` modality -> (B,) float32; `text` (B, text_len, text_dim) and `text_mask`
    (B, text_len) after dropout; `text_dropped` (B,); `candidate_id`, `epoch`, `prompt_id`, `num_frames`.
    """

    def __init__(
        self,
        seed: int,
        negative_text: Tensor | None,
        advantages: Mapping[str, np.ndarray],
        shared_draws: bool,
        text_dropout: float = 0.1,
        shift_scale: float = 5.0,
        text_len: int | None = None,
    ) -> None:
        """Store the settings of the batches; see `DrawingCollator` for the others.

        Args:
            advantages: modality -> (N,) advantages of the dataset's rows.
            shared_draws: give the candidates of a prompt the same draws.
        """
        super().__init__(seed, negative_text, text_dropout, shift_scale, text_len)
        self.advantages = {name: torch.from_numpy(values.astype(np.float32)) for name, values in advantages.items()}
        self.shared_draws = shared_draws

    def __call__(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        draws = [
            self.draw(one, one.prompt_id if self.shared_draws else one.candidate_id, one.latents) for one in candidates
        ]
        rows = [one.row for one in candidates]
        clean = {name: torch.stack([one.latents[name] for one in candidates]) for name in MODALITIES}
        return (
            clean
            | self.drawn(candidates, draws)
            | {
                "advantage": {name: values[rows] for name, values in self.advantages.items()},
                "candidate_id": [one.candidate_id for one in candidates],
                "prompt_id": [one.prompt_id for one in candidates],
            }
        )
