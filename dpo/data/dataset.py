"""Preference pairs as tensors: the training dataset, its batches, and every random draw a pair needs.

The draws of a pair (timestep, noise, text dropout) are a function of (seed, pair_id, epoch) and are made once per pair,
so winner and loser share them by construction, and a pair gets the same ones in any batch, on any worker, before and
after a restart. Pairs of one prompt have draws of their own.
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
        rejected: the same, in the same shapes.
        text: (length, text_dim) float32 embedding of the caption, unpadded.
        num_frames, height, width: geometry of the clip in frames and pixels.
        margin: of the ranking, summed over modalities; NaN where there is none.
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


class PairDataset(torch.utils.data.Dataset[Pair]):
    """A folder written by `python -m dpo.prepare`, checked when opened; indexed by `RowKey` or by row number."""

    def __init__(
        self, rows: Dataset, negative_text: Tensor | None, source: str = "the dataset", is_finite: bool = False
    ) -> None:
        """Takes the rows and the negative prompt's padded embedding (text_len, text_dim), zero where padded.

        Args:
            is_finite: every value was found finite when it was written.

        Raises:
            ValueError: no rows, a pair twice, columns missing, or latents that do not fit their shape columns.
        """
        self.rows = rows.with_format("numpy")
        self.negative_text = negative_text
        self.source = source
        self._is_finite = is_finite
        data_checks.check_columns(rows, source)
        data_checks.check_shapes(rows, source)

    @classmethod
    def load(cls, folder: str | Path) -> PairDataset:
        """Opens the folder memory-mapped."""
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
        return Pair(*ids, epoch, chosen, rejected, text, num_frames, height, width, margin)

    def labels(self, epoch: int) -> Sequence[Hashable]:
        """Per row, what must be equal within a batch, the same in every epoch."""
        return self.shapes

    def num_tokens(self, label: Any, config: JointDiTConfig) -> int:
        """Tokens of one pair with this label: those of winner and loser."""
        sizes = dict(zip(MODALITIES, (label[1:4], label[5:7]), strict=True))  # without channels
        return 2 * config.num_tokens(sizes)

    def batch_size(self, label: Any) -> int | None:
        """Pairs have no number of their own in a batch."""
        return None

    def check_model(self, name_or_path: str | Path) -> None:
        """ValueError when a model's codecs or text encoder are not those that made the data.

        Nothing is known, and refused, of data that `dpo.prepare` did not make.
        """
        path = Path(self.source) / ENCODERS_NAME
        if not path.is_file():
            return
        made_by = json.loads(path.read_text(encoding="utf-8"))
        if encoders_identity(name_or_path) != made_by["identity"]:
            raise ValueError(
                f"{self.source} was made by the codecs and the text encoder of {made_by['model']}, and {name_or_path} "
                f"has others: run `python -m dpo.prepare` with it (or delete {path}, if they only lie in other files)."
            )

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Per row, everything that must be equal within a batch, flattened: latent shapes and clip geometry.

        Video (C, T, H, W), audio (C, T, M), num_frames, height, width.
        """
        columns = [*(f"{name}_latents_shape" for name in MODALITIES), "num_frames", "height", "width"]
        table = self.rows.select_columns(columns).with_format(None).to_dict()
        return [
            tuple(size for value in row for size in (value if isinstance(value, list) else [value]))
            for row in zip(*(table[column] for column in columns), strict=True)
        ]

    @property
    def fingerprint(self) -> str:
        """Changes with the rows."""
        return str(self.rows._fingerprint)

    def mean_margin(self) -> float:
        """Mean of the ranking's margins, by which `PairCollator` turns them into weights with mean 1.

        Raises:
            ValueError: a pair has no margin, or one that is not positive and finite.
        """
        columns = self.rows.select_columns(["pair_id", "margin"]).with_format(None).to_dict()
        for pair_id, margin in zip(columns["pair_id"], columns["margin"], strict=True):
            if margin is None or not 0 < margin < float("inf"):
                raise ValueError(
                    f"{self.source}: pair {pair_id!r} has margin {margin}, which gives it no weight. Pairs labelled by "
                    "people have the margin of the reward models, if any: turn margin_weighting off for them."
                )
        return float(np.mean(columns["margin"]))

    def check_finite(self) -> None:
        """ValueError names the first pair with a NaN or infinite value.

        Reads every row once, but for data of `dpo.prepare`, which has looked at each as it wrote it.
        """
        if not self._is_finite:
            data_checks.check_finite(self.rows, self.source)

    def check_network(self, network: JointDiT | JointDiTConfig) -> None:
        """ValueError when the data was made by other codecs or another text encoder than the network's."""
        config = network if isinstance(network, JointDiTConfig) else network.config
        data_checks.check_network(self.rows, self.source, config)
        if self.negative_text is not None:
            data_checks.check_negative_text(self.negative_text, self.source, config)


class PairCollator:
    """Stacks pairs of one shape into a batch and makes their draws.

    The batch is a dict: `video`, `audio` (2B, ...) clean latents, chosen first; `video_noise`, `audio_noise` (B, ...)
    and `timestep` (B,) in (0, 1000), one per pair; `text` (B, text_len, text_dim) and `text_mask` (B, text_len) after
    dropout; `text_dropped` (B,); `weight` (B,) float32 of the pairs; `pair_id`, `epoch`, `prompt_id`, `num_frames`.
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
        """Takes the run's seed, the padded embedding of the negative prompt (dropped captions become it, as published).

        Args:
            mean_margin: with `PairDataset.mean_margin()` a pair's weight is its margin over it, so that weights have
                mean 1 over the dataset and the loss keeps its scale; without, every weight is 1, as published.
            text_len: length that captions are padded to, by default that of the negative text; the network attends to
                padding as well, so that it must not depend on the batch.

        Raises:
            ValueError: text dropout without a negative text to put in place of the captions.
        """
        if text_dropout > 0 and negative_text is None:
            raise ValueError(
                f"text_dropout is {text_dropout}, but the dataset has no {NEGATIVE_TEXT_NAME} to put in place of a "
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
