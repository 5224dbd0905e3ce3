"""Preference pairs as tensors: the training dataset, its batches, and the random draws of each pair.

The draws of a pair (timestep, noise, text dropout) are a function of (seed, pair_id, epoch) and are made once per
pair. Winner and loser therefore share them by construction, and a pair gets the same draws in any batch, on any
worker, before and after a restart. Different pairs of one prompt have different draws.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import Tensor

from core.stage_state import finished_summary
from dpo.data import checks as data_checks
from dpo.data.regions import Regions, read_regions, stack_regions
from dpo.data.schema import ENCODERS_NAME, MODALITIES, NEGATIVE_TEXT_NAME, SIDES
from model.data.batches import RowKey
from model.data.draws import Draw, draw, stack_texts
from model.javisdit.network.config import JointDiTConfig
from model.javisdit.network.transformer import JointDiT
from model.javisdit.weights.folders import encoders_identity


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


class PairDataset(torch.utils.data.Dataset[Pair]):
    """The training dataset in a folder written by `python -m dpo.prepare`; indexed by `RowKey` or by row number.

    Columns and shapes are checked on opening.
    """

    def __init__(
        self, rows: Dataset, negative_text: Tensor | None, source: str = "the dataset", is_finite: bool = False
    ) -> None:
        """Check the rows and store them.

        Args:
            rows: one row per pair, with the columns of `dpo.data.schema`.
            negative_text: padded embedding of the negative prompt, (text_len, text_dim), zero on padding.
            source: name of the dataset in error messages.
            is_finite: true if every value was checked to be finite when it was written.

        Raises:
            ValueError: if there are no rows, a pair occurs twice, columns are missing, or latents do not match their
                shape columns.
        """
        self.rows = rows.with_format("numpy")
        self.negative_text = negative_text
        self.source = source
        self._is_finite = is_finite
        data_checks.check_columns(rows, source)
        data_checks.check_shapes(rows, source)

    @classmethod
    def load(cls, folder: str | Path) -> PairDataset:
        """Open a folder written by `python -m dpo.prepare`, memory-mapped."""
        folder = Path(folder)
        rows = data_checks.open_rows(folder)
        negative = folder / NEGATIVE_TEXT_NAME
        text = load_file(negative)["embeds"].float() if negative.is_file() else None
        return cls(rows, text, str(folder), is_finite=finished_summary(folder) is not None)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: RowKey | int) -> Pair:
        number, epoch = key if isinstance(key, tuple) else (key, 0)
        row = self.rows[number]
        chosen, rejected = (
            {name: _tensor(row[f"{side}_{name}_latents"], row[f"{name}_latents_shape"]) for name in MODALITIES}
            for side in SIDES
        )
        text = _tensor(row["text_embeds"], (row["text_length"], row["text_dim"]))
        num_frames, height, width = (int(row[name]) for name in ("num_frames", "height", "width"))
        ids = str(row["pair_id"]), str(row["prompt_id"])
        margin = float("nan") if row["margin"] is None else float(row["margin"])
        return Pair(*ids, epoch, chosen, rejected, text, num_frames, height, width, margin, read_regions(row))

    def labels(self, epoch: int) -> Sequence[Hashable]:
        """Return a label per row; only rows with equal labels share a batch. The labels are the same in every epoch."""
        return self.shapes

    def num_tokens(self, label: Any, config: JointDiTConfig) -> int:
        """Return the number of tokens of one pair with this label, winner and loser together."""
        sizes = dict(zip(MODALITIES, (label[1:4], label[5:7]), strict=True))  # latent sizes without channels
        return 2 * config.num_tokens(sizes)

    def batch_size(self, label: Any) -> int | None:
        """Return None: labels of pairs do not set the size of a batch."""
        return None

    def check_model(self, name_or_path: str | Path) -> None:
        """Raise ValueError if a model has other codecs or another text encoder than those that made the data.

        Data that `dpo.prepare` did not make has no record of them and passes.
        """
        path = Path(self.source) / ENCODERS_NAME
        if not path.is_file():
            return
        made_by = json.loads(path.read_text(encoding="utf-8"))
        if encoders_identity(name_or_path) != made_by["identity"]:
            raise ValueError(
                f"{self.source} was made by the codecs and the text encoder of {made_by['model']}, but {name_or_path} "
                f"has others: run `python -m dpo.prepare` with it (or delete {path}, if only the files are different)."
            )

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Latent shapes and clip geometry of each row, flattened; they must be equal within a batch.

        Order: video (C, T, H, W), audio (C, T, M), num_frames, height, width.
        """
        columns = [*(f"{name}_latents_shape" for name in MODALITIES), "num_frames", "height", "width"]
        table = self.rows.select_columns(columns).with_format(None).to_dict()
        return [
            tuple(size for value in row for size in (value if isinstance(value, list) else [value]))
            for row in zip(*(table[column] for column in columns), strict=True)
        ]

    @property
    def fingerprint(self) -> str:
        """Text that changes with the rows."""
        return str(self.rows._fingerprint)

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

    def check_finite(self) -> None:
        """Raise a ValueError that names the first pair with a NaN or infinite value.

        Reads every row once; data of `dpo.prepare` is not read, because its values were checked when written.
        """
        if not self._is_finite:
            data_checks.check_finite(self.rows, self.source)

    def check_network(self, network: JointDiT | JointDiTConfig) -> None:
        """Raise ValueError if sizes show that other codecs or another text encoder than the network's made the data."""
        config = network if isinstance(network, JointDiTConfig) else network.config
        data_checks.check_network(self.rows, self.source, config)
        if self.negative_text is not None:
            data_checks.check_negative_text(self.negative_text, self.source, config)


class PairCollator:
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
        """Store the settings of the batches and their draws.

        Args:
            seed: seed of the run.
            negative_text: padded embedding of the negative prompt (text_len, text_dim), which replaces dropped
                captions, as published.
            text_dropout: probability that a caption is dropped.
            shift_scale: scale of the timestep shift, see `model.flow.shift_ratio`.
            mean_margin: `PairDataset.mean_margin()`, to weight each pair by its margin divided by this mean, so that
                weights have mean 1 over the dataset and the loss keeps its scale; None gives every pair the weight 1,
                as published.
            text_len: length to which captions are padded, by default that of the negative text. The network attends
                to padding, so the length must not depend on the batch.

        Raises:
            ValueError: if text_dropout is positive without a negative text.
        """
        if text_dropout > 0 and negative_text is None:
            raise ValueError(
                f"text_dropout is {text_dropout}, but the dataset has no {NEGATIVE_TEXT_NAME} to replace a dropped "
                "caption: prepare it again, or set text_dropout to 0."
            )
        self.seed = seed
        self.negative_text = None if negative_text is None else negative_text[negative_text.any(1)]  # unpadded
        self.text_len = text_len or (None if negative_text is None else len(negative_text))
        self.text_dropout = text_dropout
        self.shift_scale = shift_scale
        self.mean_margin = mean_margin

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        draws = [self._draw(pair) for pair in pairs]
        dropped = torch.tensor([draw.text_dropped for draw in draws])
        text, mask = self._texts(pairs, dropped)
        batch: dict[str, Any] = {
            name: torch.stack([pair.chosen[name] for pair in pairs] + [pair.rejected[name] for pair in pairs])
            for name in MODALITIES
        }
        batch |= {f"{name}_noise": torch.stack([draw.noise[name] for draw in draws]) for name in MODALITIES}
        batch |= stack_regions([pair.regions for pair in pairs])
        return batch | {
            "timestep": torch.stack([draw.timestep for draw in draws]),
            "text": text,
            "text_mask": mask,
            "text_dropped": dropped,
            "weight": torch.tensor([self._weight(pair) for pair in pairs], dtype=torch.float32),
            "num_frames": pairs[0].num_frames,
            "epoch": [pair.epoch for pair in pairs],
            "pair_id": [pair.pair_id for pair in pairs],
            "prompt_id": [pair.prompt_id for pair in pairs],
        }

    def _draw(self, pair: Pair) -> Draw:
        shapes = {name: pair.chosen[name].shape for name in MODALITIES}
        size = pair.height, pair.width, pair.num_frames
        return draw(self.seed, pair.pair_id, pair.epoch, shapes, size, self.text_dropout, self.shift_scale)

    def _weight(self, pair: Pair) -> float:
        return 1.0 if self.mean_margin is None else pair.margin / self.mean_margin

    def _texts(self, pairs: Sequence[Pair], dropped: Tensor) -> tuple[Tensor, Tensor]:
        texts = [pair.text for pair in pairs]
        for row in dropped.nonzero().flatten().tolist():
            assert self.negative_text is not None
            texts[row] = self.negative_text
        return stack_texts(texts, self.text_len or max(map(len, texts)))


def _tensor(values: np.ndarray, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32).reshape(tuple(int(size) for size in shape)))
