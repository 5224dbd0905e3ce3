"""The dataset of prepared clips that `python -m model.prepare` writes, and the collator of its batches."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file
from torch import Tensor

from model.data.batches import BucketBatchSampler, RowKey
from model.data.draws import Draw, draw, stack_texts
from model.data.latent_schema import COLUMNS, MODALITIES, NEGATIVE_TEXT_NAME
from model.javisdit.network.config import JointDiTConfig
from model.train.arguments import JointTrainingArguments


@dataclass(frozen=True, eq=False)
class LatentSample:
    """One encoded clip.

    Attributes:
        latents: modality -> latents; video (C, T, H, W), audio (C, T, M), float32.
        text: (length, text_dim) float32 embedding of the caption, unpadded.
        num_frames, height, width: geometry of the clip in frames and pixels.
    """

    clip_id: str
    epoch: int
    latents: dict[str, Tensor]
    text: Tensor
    num_frames: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int, int]:
        return self.height, self.width, self.num_frames


class Bucketed(Protocol):
    """Interface of clips, or of pairs, for a sampler of batches."""

    def labels(self, epoch: int) -> Sequence[Hashable]:
        """Return the label of each row; a batch has one label, and None leaves the row out of the epoch."""

    def num_tokens(self, label: Any, config: JointDiTConfig) -> int:
        """Return the number of tokens of one clip, or pair, with this label."""

    def batch_size(self, label: Any) -> int | None:
        """Return the batch size for this label where the data define one, else None."""


class TrainingClips(Bucketed, Protocol):
    """Interface of the trainer's data."""

    negative_text: Tensor  # (text_len, text_dim), zero where padded

    def collator(self, collate: FlowCollator) -> Callable[[list[Any]], Any]:
        """Return the function that the loader's workers apply to a batch of items."""

    def encode(self, items: list[Any]) -> list[LatentSample]:
        """Encode items that the collator left unchanged, in the main process."""

    def check_network(self, config: JointDiTConfig) -> None:
        """Raise ValueError for data made for another network."""

    def __len__(self) -> int: ...


def batch_sampler(
    clips: Bucketed, args: JointTrainingArguments, config: JointDiTConfig, keep_all: bool = False
) -> BucketBatchSampler:
    """Return a sampler of shuffled batches of one label each; `keep_all` keeps batches that are not full.

    The batches have the sizes of `batch_size_of`.
    """
    sizes = batch_size_of(clips, args, config)
    return BucketBatchSampler(clips.labels, sizes, args.seed, args.dataloader_drop_last and not keep_all)


def batch_size_of(clips: Bucketed, args: JointTrainingArguments, config: JointDiTConfig) -> Callable[[Any], int]:
    """Return the function that gives the number of rows in a batch of a label.

    A batch holds as many clips, or pairs, as fit into `tokens_per_batch` (at least one); without that setting, the
    batch size of the data, else `per_device_train_batch_size`.
    """

    def batch_size(label: Any) -> int:
        if args.tokens_per_batch is not None:
            return max(args.tokens_per_batch // clips.num_tokens(label, config), 1)
        return clips.batch_size(label) or args.train_batch_size

    return batch_size


class LatentDataset(torch.utils.data.Dataset[LatentSample]):
    """Memory-mapped dataset of a folder written by `python -m model.prepare`; indexed by `RowKey`.

    Only the given modalities are read, such as sound alone for audio pre-training.
    """

    def __init__(
        self,
        rows: Dataset,
        negative_text: Tensor,
        modalities: Sequence[str] = MODALITIES,
        source: str = "the dataset",
    ) -> None:
        """Check rows, and keep the negative prompt's padded embedding (text_len, text_dim), zero where padded.

        Raises:
            ValueError: no rows, columns missing, or a modality that the rows lack.
        """
        missing = [name for name in COLUMNS if name not in rows.column_names]
        if missing or not len(rows):
            what = f"lacks the columns {', '.join(missing)}" if missing else "has no clips"
            raise ValueError(f"{source} {what}: make it with `python -m model.prepare`.")
        self.rows = rows.with_format("numpy")
        self.negative_text = negative_text
        self.modalities = tuple(modalities)
        self.source = source
        for name in self.modalities:
            if any(not shape[0] for shape in self.shapes[name]):
                raise ValueError(
                    f"{source} has clips without {name}: prepare them again with {name}, or train without it."
                )

    @classmethod
    def load(cls, folder: str | Path, modalities: Sequence[str] = MODALITIES) -> LatentDataset:
        """Open a prepared folder."""
        folder = Path(folder)
        if not (folder / "state.json").is_file():
            raise ValueError(f"{folder} holds no prepared clips: make them with `python -m model.prepare`.")
        negative = load_file(folder / NEGATIVE_TEXT_NAME)["embeds"].float()
        return cls(load_from_disk(str(folder)), negative, modalities, str(folder))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: RowKey) -> LatentSample:
        row = self.rows[key.row]
        latents = {name: _tensor(row[f"{name}_latents"], row[f"{name}_latents_shape"]) for name in self.modalities}
        text = _tensor(row["text_embeds"], (row["text_length"], row["text_dim"]))
        num_frames, height, width = (int(row[name]) for name in ("num_frames", "height", "width"))
        return LatentSample(str(row["clip_id"]), key.epoch, latents, text, num_frames, height, width)

    @cached_property
    def shapes(self) -> dict[str, list[tuple[int, ...]]]:
        """The latent shape per row by modality; (0,) where the row lacks it."""
        columns = {name: self.rows.with_format(None)[f"{name}_latents_shape"] for name in self.modalities}
        return {name: [tuple(shape) or (0,) for shape in column] for name, column in columns.items()}

    def labels(self, epoch: int) -> Sequence[Hashable]:
        """Return latent shapes and geometry of each row, the same in every epoch."""
        return self._labels

    def num_tokens(self, label: Any, config: JointDiTConfig) -> int:
        return config.num_tokens({name: shape[1:] for name, shape in zip(self.modalities, label, strict=False)})

    def batch_size(self, label: Any) -> int | None:
        return None

    def collator(self, collate: FlowCollator) -> Callable[[list[Any]], Any]:
        return collate

    def encode(self, items: list[Any]) -> list[LatentSample]:
        raise AssertionError("prepared clips are encoded")

    @cached_property
    def _labels(self) -> list[Hashable]:
        geometry = [self.rows.with_format(None)[name] for name in ("num_frames", "height", "width")]
        return list(zip(*self.shapes.values(), *geometry, strict=True))

    def check_network(self, config: JointDiTConfig) -> None:
        """Raise ValueError for data made by other codecs or another text encoder than the network's."""
        expected = {spec.name: spec.channels for spec in config.specs} | {"text": config.text_dim}
        found = {name: {shape[0] for shape in self.shapes[name]} for name in self.modalities}
        for name, values in (found | {"text": {self.negative_text.shape[1]}}).items():
            for value in values - {expected.get(name)}:
                raise ValueError(
                    f"{self.source} has {value} {name} channels, the model expects {expected.get(name, 'none')}: the "
                    "data was prepared for another model; run `python -m model.prepare` with this one."
                )


class FlowCollator:
    """Collator that stacks clips of one shape and makes their draws.

    The batch is a dict: per modality `<name>` (B, ...) clean latents and `<name>_noise`; `timestep` (B,) in (0, 1000);
    `text` (B, text_len, text_dim) and `text_mask` (B, text_len) after dropout; `clip_id`, `num_frames`.
    """

    def __init__(self, seed: int, negative_text: Tensor, text_dropout: float = 0.1, shift_scale: float = 5.0) -> None:
        """Create a collator; the padded embedding of the negative prompt replaces dropped captions."""
        self.seed = seed
        self.negative_text = negative_text[negative_text.any(1)]  # unpadded
        self.text_len = len(negative_text)  # the network attends to padding as well
        self.text_dropout = text_dropout
        self.shift_scale = shift_scale

    def __call__(self, samples: Sequence[LatentSample]) -> dict[str, Any]:
        draws = [self._draw(sample) for sample in samples]
        texts = [self.negative_text if d.text_dropped else s.text for d, s in zip(draws, samples, strict=True)]
        text, mask = stack_texts(texts, self.text_len)
        batch: dict[str, Any] = {}
        for name in samples[0].latents:
            batch[name] = torch.stack([sample.latents[name] for sample in samples])
            batch[f"{name}_noise"] = torch.stack([one.noise[name] for one in draws])
        return batch | {
            "timestep": torch.stack([one.timestep for one in draws]),
            "text": text,
            "text_mask": mask,
            "num_frames": samples[0].num_frames,
            "clip_id": [sample.clip_id for sample in samples],
        }

    def _draw(self, sample: LatentSample) -> Draw:
        shapes = {name: latent.shape for name, latent in sample.latents.items()}
        return draw(self.seed, sample.clip_id, sample.epoch, shapes, sample.size, self.text_dropout, self.shift_scale)


def _tensor(values: np.ndarray, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32).reshape(tuple(int(size) for size in shape)))
