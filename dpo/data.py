"""Preference pairs as tensors: the training dataset, its batches, and every random draw a pair needs.

The draws of a pair (timestep, noise, text dropout) are a function of (seed, prompt_id, epoch) and are made once per
pair, so winner and loser share them by construction, and a pair gets the same ones in any batch, on any worker, before
and after a restart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file
from torch import Tensor

from dpo.schema import COLUMNS, MODALITIES, NEGATIVE_TEXT_NAME, SIDES
from model.batches import RowKey
from model.draws import Draw, draw, stack_texts
from model.transformer import JointDiT


@dataclass(frozen=True, eq=False)
class Pair:
    """One row of the training dataset.

    Attributes:
        chosen: modality -> latents; video (C, T, H, W), audio (C, T, M), float32.
        rejected: the same, in the same shapes.
        text: (length, text_dim) float32 embedding of the caption, unpadded.
        num_frames, height, width: geometry of the clip in frames and pixels.
    """

    prompt_id: str
    epoch: int
    chosen: dict[str, Tensor]
    rejected: dict[str, Tensor]
    text: Tensor
    num_frames: int
    height: int
    width: int


class PairDataset(torch.utils.data.Dataset[Pair]):
    """A folder written by `python -m dpo.prepare`, checked when opened; indexed by `RowKey` or by row number."""

    def __init__(self, rows: Dataset, negative_text: Tensor | None, source: str = "the dataset") -> None:
        """Takes the rows and the negative prompt's padded embedding (text_len, text_dim), zero where padded.

        Raises:
            ValueError: no rows, columns missing, or latents that do not fit their shape columns.
        """
        self.rows = rows.with_format("numpy")
        self.negative_text = negative_text
        self.source = source
        self._check_columns()
        self._check_shapes()

    @classmethod
    def load(cls, folder: str | Path) -> "PairDataset":
        """Opens the folder memory-mapped."""
        folder = Path(folder)
        if not (folder / "state.json").is_file():
            raise ValueError(f"{folder} holds no training dataset: make one with `python -m dpo.prepare`.")
        negative = folder / NEGATIVE_TEXT_NAME
        text = load_file(negative)["embeds"].float() if negative.is_file() else None
        return cls(load_from_disk(str(folder)), text, source=str(folder))

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
        return Pair(str(row["prompt_id"]), epoch, chosen, rejected, text, num_frames, height, width)

    def labels(self, epoch: int) -> list[tuple[int, ...]]:
        """What must be equal within a batch, the same in every epoch."""
        return self.shapes

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Per row, everything that must be equal within a batch: latent shapes and clip geometry, flattened."""
        columns = [*(f"{name}_latents_shape" for name in MODALITIES), "num_frames", "height", "width"]
        table = self.rows.select_columns(columns).with_format(None).to_dict()
        return [
            tuple(size for value in row for size in (value if isinstance(value, list) else [value]))
            for row in zip(*(table[column] for column in columns), strict=True)
        ]

    def check_finite(self) -> None:
        """Reads every row once; ValueError names the first pair with a NaN or infinite value."""
        for index in range(len(self)):
            pair = self[index]
            parts = {f"{side} {name}": getattr(pair, side)[name] for side in SIDES for name in MODALITIES}
            for name, value in (parts | {"text": pair.text}).items():
                if not torch.isfinite(value).all():
                    raise ValueError(
                        f"{self.source}: pair {pair.prompt_id!r} (row {index}) has non-finite values in its {name} "
                        "data, which would turn the whole model into NaN: drop the pair, or prepare it again."
                    )

    def check_network(self, network: JointDiT) -> None:
        """ValueError when the data was made by other codecs or another text encoder than the network's."""
        row = self.rows[0]
        found = {name: int(row[f"{name}_latents_shape"][0]) for name in MODALITIES} | {"text": int(row["text_dim"])}
        expected = {spec.name: spec.channels for spec in network.config.specs} | {"text": network.config.text_dim}
        for name, value in found.items():
            if expected.get(name) != value:
                raise ValueError(
                    f"{self.source} has {value} {name} channels, the model expects {expected.get(name, 'none')}: the "
                    "data was prepared for another model; run `python -m dpo.prepare` with this one."
                )

    def _check_columns(self) -> None:
        missing = [name for name in COLUMNS if name not in self.rows.column_names]
        if missing:
            raise ValueError(
                f"{self.source} lacks the columns {', '.join(missing)}, so it is no training dataset "
                "(is it the pairs dataset?): make one with `python -m dpo.prepare`."
            )
        if not len(self.rows):
            raise ValueError(
                f"{self.source} has no pairs, so there is nothing to learn: see ranking.json of the "
                "pairs for why each prompt gave none, and sample more prompts or candidates."
            )

    def _check_shapes(self) -> None:
        table = self.rows.with_format("arrow")
        for start in range(0, len(self.rows), 1024):
            batch = table[start : start + 1024]
            ids = batch["prompt_id"].to_pylist()
            for name in MODALITIES:
                wanted = [int(np.prod(shape)) for shape in batch[f"{name}_latents_shape"].to_pylist()]
                for side in SIDES:
                    lengths = batch[f"{side}_{name}_latents"].combine_chunks().value_lengths().to_pylist()
                    self._check_lengths(ids, f"{side}_{name}_latents", lengths, wanted)
            texts = zip(batch["text_length"].to_pylist(), batch["text_dim"].to_pylist(), strict=True)
            lengths = batch["text_embeds"].combine_chunks().value_lengths().to_pylist()
            self._check_lengths(ids, "text_embeds", lengths, [length * dim for length, dim in texts])

    def _check_lengths(self, ids: list[str], column: str, lengths: list[int], wanted: list[int]) -> None:
        for prompt_id, length, size in zip(ids, lengths, wanted, strict=True):
            if length != size:
                raise ValueError(
                    f"{self.source}: pair {prompt_id!r} has {length} values in {column}, its shape columns "
                    f"say {size}: the dataset is damaged; prepare it again."
                )


class PairCollator:
    """Stacks pairs of one shape into a batch and makes their draws.

    The batch is a dict: `video`, `audio` (2B, ...) clean latents, chosen first; `video_noise`, `audio_noise` (B, ...)
    and `timestep` (B,) in (0, 1000), one per pair; `text` (B, text_len, text_dim) and `text_mask` (B, text_len) after
    dropout; `text_dropped` (B,); `prompt_id`, `num_frames`.
    """

    def __init__(
        self, seed: int, negative_text: Tensor | None, text_dropout: float = 0.1, shift_scale: float = 5.0
    ) -> None:
        """Takes the run's seed, the padded embedding of the negative prompt (dropped captions become it, as published).

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
        # The network attends to padding as well, so its length must not depend on the batch.
        self.text_len = None if negative_text is None else len(negative_text)
        self.text_dropout = text_dropout
        self.shift_scale = shift_scale

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
            "num_frames": pairs[0].num_frames,
            "weight": torch.ones(len(pairs)),
            "epoch": [pair.epoch for pair in pairs],
            "pair_id": [pair.prompt_id for pair in pairs],
            "prompt_id": [pair.prompt_id for pair in pairs],
        }

    def _draw(self, pair: Pair) -> Draw:
        shapes = {name: pair.chosen[name].shape for name in MODALITIES}
        size = pair.height, pair.width, pair.num_frames
        return draw(self.seed, pair.prompt_id, pair.epoch, shapes, size, self.text_dropout, self.shift_scale)

    def _texts(self, pairs: Sequence[Pair], dropped: Tensor) -> tuple[Tensor, Tensor]:
        texts = [pair.text for pair in pairs]
        for row in dropped.nonzero().flatten().tolist():
            assert self.negative_text is not None
            texts[row] = self.negative_text
        return stack_texts(texts, self.text_len or max(map(len, texts)))


def _tensor(values: np.ndarray, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32).reshape(tuple(int(size) for size in shape)))
