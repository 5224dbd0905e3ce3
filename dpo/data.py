"""Preference pairs as tensors: the training dataset, its batches, and every random draw a pair needs.

The draws of a pair (timestep, noise, text dropout) are a function of (seed, prompt_id, epoch) and are made once per
pair, so winner and loser share them by construction, and a pair gets the same ones in any batch, on any worker, before
and after a restart.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file
from torch import Tensor

from dpo.schema import COLUMNS, MODALITIES, NEGATIVE_TEXT_NAME, SIDES
from model.flow import sample_timesteps, shift_timesteps
from model.transformer import JointDiT


class PairKey(NamedTuple):
    """What a sampler asks the dataset for: a row, in the epoch that seeds its draws."""

    row: int
    epoch: int


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
    """A folder written by `python -m dpo.prepare`, checked when opened; indexed by `PairKey` or by row number."""

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

    def __getitem__(self, key: PairKey | int) -> Pair:
        number, epoch = key if isinstance(key, tuple) else (key, 0)
        row = self.rows[number]
        chosen, rejected = (
            {name: _tensor(row[f"{side}_{name}_latents"], row[f"{name}_latents_shape"]) for name in MODALITIES}
            for side in SIDES
        )
        text = _tensor(row["text_embeds"], (row["text_length"], row["text_dim"]))
        num_frames, height, width = (int(row[name]) for name in ("num_frames", "height", "width"))
        return Pair(str(row["prompt_id"]), epoch, chosen, rejected, text, num_frames, height, width)

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
            "prompt_id": [pair.prompt_id for pair in pairs],
        }

    def _draw(self, pair: Pair) -> "Draw":
        generator = torch.Generator().manual_seed(pair_seed(self.seed, pair.prompt_id, pair.epoch))
        timestep = sample_timesteps(1, generator)
        shifted = shift_timesteps(timestep, pair.height, pair.width, pair.num_frames, self.shift_scale)[0]
        text_dropped = bool(torch.rand((), generator=generator) < self.text_dropout)
        noise = {name: torch.randn(pair.chosen[name].shape, generator=generator) for name in MODALITIES}
        return Draw(shifted, text_dropped, noise)

    def _texts(self, pairs: Sequence[Pair], dropped: Tensor) -> tuple[Tensor, Tensor]:
        length = self.text_len or max(len(pair.text) for pair in pairs)
        text = torch.zeros(len(pairs), length, pairs[0].text.shape[1])
        mask = torch.zeros(len(pairs), length, dtype=torch.bool)
        for i, pair in enumerate(pairs):
            caption = pair.text
            if dropped[i]:
                assert self.negative_text is not None
                caption = self.negative_text
            text[i, : len(caption)] = caption
            mask[i, : len(caption)] = True
        return text, mask


class Draw(NamedTuple):
    """The random part of one pair, shared by winner and loser, policy and reference."""

    timestep: Tensor  # () in (0, 1000), shifted
    text_dropped: bool
    noise: dict[str, Tensor]  # modality -> latent shape


def pair_seed(seed: int, prompt_id: str, epoch: int) -> int:
    """63-bit seed of a pair's draws in an epoch."""
    digest = hashlib.blake2b(json.dumps([seed, prompt_id, epoch]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class ShapeBucketSampler(torch.utils.data.Sampler[list[PairKey]]):
    """Batches of pairs of one shape, shuffled by (seed, epoch): mixed geometries train side by side.

    The last batch of a shape may be smaller, unless `drop_last`.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], batch_size: int, seed: int = 0, drop_last: bool = False
    ) -> None:
        buckets: dict[tuple[int, ...], list[int]] = {}
        for index, shape in enumerate(shapes):
            buckets.setdefault(shape, []).append(index)
        self.buckets = list(buckets.values())
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0
        if not len(self):
            raise ValueError(
                f"No shape has {batch_size} pairs, so dropping the last batches leaves none: lower "
                "per_device_train_batch_size or set dataloader_drop_last to false."
            )

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        spare = 0 if self.drop_last else self.batch_size - 1
        return sum((len(bucket) + spare) // self.batch_size for bucket in self.buckets)

    def __iter__(self) -> Iterator[list[PairKey]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        batches = [batch for bucket in self.buckets for batch in self._split(rng.permutation(bucket).tolist())]
        for i in rng.permutation(len(batches)):
            yield [PairKey(index, self.epoch) for index in batches[i]]

    def _split(self, indices: list[int]) -> list[list[int]]:
        batches = [indices[start : start + self.batch_size] for start in range(0, len(indices), self.batch_size)]
        return [batch for batch in batches if len(batch) == self.batch_size or not self.drop_last]


def _tensor(values: np.ndarray, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32).reshape(tuple(int(size) for size in shape)))
