"""The encoder of clips: rows of the prepared dataset, read, encoded and flattened to float16."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.atomic import atomic_path
from media.clip import MediaError
from model.data.batches import RowKey
from model.data.buckets import Bucket
from model.data.clip_encoder import ClipEncoder
from model.data.clip_samples import ClipDataset, ClipForm, ClipSample
from model.data.clip_table import table_folder
from model.data.latent_schema import MODALITIES, NEGATIVE_TEXT_NAME
from model.javisdit.pipeline import GenerationDefaults, JointAVPipeline, read_defaults
from model.javisdit.weights.folders import PIPELINE_CONFIG_NAME, base_folder
from model.prepare.config import RowSettings
from model.prepare.parts import DIED, Parts, Row

EPOCH = 0  # its draws of buckets and windows are used
NUM_REASONS_SHOWN = 10


class RowEncoder:
    """Encoder of clips. Table and model are read for the first part."""

    def __init__(self, settings: RowSettings) -> None:
        self.settings = settings

    def write_part(
        self,
        parts: Parts,
        start: int,
        given_up: Collection[int] = (),
        progress: Callable[[int], Any] = lambda _: None,
    ) -> None:
        """Encode the rows of a part one by one, so that the bits of a clip do not depend on its neighbours.

        Args:
            given_up: rows on which processes have died; they become failures.

        Raises:
            ValueError: the model or the buckets cannot be used.
        """
        write_negative_text(self.encoder, parts.folder)
        parts.make(start, lambda row: [self.row(row)], lambda row: [self._failure(row, DIED)], given_up, progress)

    def row(self, number: int) -> Row:
        """Return one clip encoded, or its failure row."""
        try:
            sample = self.dataset[RowKey(number, EPOCH)]
        except MediaError as error:
            return self._failure(number, error.reason)
        row = self._encode(sample)
        broken = not_finite(row)
        return self._failure(number, f"its {broken} are not finite in float16") if broken else row

    @cached_property
    def encoder(self) -> ClipEncoder:
        dtype = getattr(torch, self.settings.dtype)
        return ClipEncoder(JointAVPipeline.from_pretrained(self.settings.model, self.settings.device, dtype))

    @cached_property
    def dataset(self) -> ClipDataset:
        dataset = open_dataset(self.settings)
        for bucket in dataset.table:
            self.encoder.latent_sizes(dataset.table, bucket, dataset.form)  # ValueError now, not in the middle
        return dataset

    def _encode(self, sample: ClipSample) -> Row:
        [encoded] = self.encoder([sample])
        row: Row = {"clip_id": sample.clip_id, "prompt": sample.prompt} | text_columns(encoded.text)
        for name in MODALITIES:
            latents = encoded.latents.get(name)
            row[f"{name}_latents"] = np.zeros(0, np.float16) if latents is None else flat(latents)
            row[f"{name}_latents_shape"] = [] if latents is None else list(latents.shape)
        return row | {name: getattr(sample, name) for name in ("num_frames", "height", "width", "fps")}

    def _failure(self, number: int, reason: str) -> Row:
        clip = self.dataset.clips[number]
        path = "" if clip.path is None else os.path.relpath(clip.path, table_folder(self.settings.clips))
        return {"clip_id": clip.clip_id, "path": path, "reason": reason}


def open_dataset(settings: RowSettings) -> ClipDataset:
    """Open the clips and their buckets, without the model's weights.

    Raises:
        ValueError: no such table or model, or invalid buckets.
    """
    defaults = read_defaults(base_folder(settings.model) / PIPELINE_CONFIG_NAME)
    buckets = own_bucket(defaults) if settings.buckets is None else settings.buckets
    form = ClipForm(defaults.fps, defaults.sample_rate, settings.audio_only, settings.audio_fps)
    return ClipDataset.open(settings.clips, buckets, form, settings.seed)


def own_bucket(defaults: GenerationDefaults) -> dict[str, Any]:
    """Return the model's default size and length as the only bucket."""
    return {f"{defaults.height}x{defaults.width}": {defaults.num_frames: {"batch_size": 1}}}


def describe(dataset: ClipDataset) -> list[str]:
    """Return the number of clips per bucket and unusable clips, line by line, after probing files where needed."""
    unusable = dataset.probe_all()
    counts: dict[Bucket | None, int] = {}
    for row in range(len(dataset)):
        if row not in unusable:
            bucket = dataset.bucket(row, EPOCH)
            counts[bucket] = counts.get(bucket, 0) + 1
    sizes = {bucket: "x".join(map(str, dataset.table.size(bucket))) for bucket in counts if bucket is not None}
    lines = [f"{sizes[bucket]}, {bucket.num_frames} frames: {counts[bucket]} clips" for bucket in sizes]
    lines += [f"in no bucket: {counts[None]} clips"] if None in counts else []
    reasons = [f"unusable: {dataset.clips[row].clip_id}: {error.reason}" for row, error in sorted(unusable.items())]
    more = len(reasons) - NUM_REASONS_SHOWN
    return lines + reasons[:NUM_REASONS_SHOWN] + ([f"unusable: {more} more"] if more > 0 else [])


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Set torch's number of threads within the block: the last bits of sums depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write_negative_text(encoder: ClipEncoder, folder: Path) -> None:
    """Write the embedding of the model's negative prompt beside the rows, unless it exists."""
    if not (folder / NEGATIVE_TEXT_NAME).is_file():
        with atomic_path(folder / NEGATIVE_TEXT_NAME) as path:
            save_file({"embeds": encoder.negative_text()}, path)


def text_columns(text: Tensor) -> Row:
    """Return an embedding (length, text_dim) as columns."""
    return {"text_embeds": flat(text), "text_length": len(text), "text_dim": text.shape[1]}


def not_finite(row: Row) -> str | None:
    """Return the name of the first array column with a value that is not finite in float16, or None."""
    lists = (name for name, value in row.items() if isinstance(value, np.ndarray))
    return next((name for name in lists if not np.isfinite(row[name]).all()), None)


def flat(values: Tensor) -> np.ndarray:
    """Return a tensor as a flat float16 array; values that are too large become infinite."""
    with np.errstate(over="ignore"):
        return values.numpy().astype(np.float16).ravel()
