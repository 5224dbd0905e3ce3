"""Decoding of prepared clips to media files, to check the training data by eye and ear."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.atomic import atomic_write_text
from media.audio import write_wav
from media.write import write_clip
from model.data.batches import RowKey
from model.data.latent_dataset import LatentDataset
from model.data.latent_schema import MODALITIES
from model.javisdit.codecs.latents import AVLatents
from model.javisdit.pipeline import JointAVPipeline

CHECK_FOLDER = "check"
MAX_NAME_LENGTH = 100


def decode_clips(folder: Path, model: str, device: str, count: int, seed: int) -> list[Path]:
    """Write `count` clips of a prepared folder, drawn with `seed`, into its check/, with their captions.

    A larger count adds to the clips of a smaller one.

    Returns:
        The mp4 files, each with a wav beside it; wav files where the folder has sound alone.
    """
    dataset = LatentDataset.load(folder, ("audio",))
    rows = dataset.rows.with_format(None).select_columns(["video_latents_shape", "fps", "prompt"])
    if rows[0]["video_latents_shape"]:
        dataset = LatentDataset.load(folder, MODALITIES)
    pipeline = JointAVPipeline.from_pretrained(model, device=device)
    paths = []
    for row in sorted(np.random.default_rng(seed).permutation(len(dataset))[:count].tolist()):
        sample, columns = dataset[RowKey(row, 0)], rows[row]
        path = folder / CHECK_FOLDER / f"{row:05d}-{file_name(sample.clip_id)}"
        latents = to_latents(sample.latents, sample.size, columns["fps"], pipeline.defaults.sample_rate)
        paths.append(write_latents(pipeline, latents, path))
        atomic_write_text(path.with_name(f"{path.name}.txt"), columns["prompt"] + "\n")
    return paths


def to_latents(tensors: Mapping[str, Tensor], size: tuple[int, int, int], fps: float, sample_rate: int) -> AVLatents:
    """Return latents by modality of a clip of `size` (height, width, frames) in the form that codecs decode."""
    height, width, num_frames = size
    video = tensors.get("video", torch.empty(0))
    return AVLatents(
        video, tensors["audio"], num_frames, height, width, fps, num_samples=round(num_frames / fps * sample_rate)
    )


def write_latents(pipeline: JointAVPipeline, latents: AVLatents, path: Path) -> Path:
    """Decode latents to `path` with the suffix .mp4 and the sound beside it, or .wav for sound alone."""
    if latents.video.numel():
        [clip] = pipeline.decode_latents([latents])
        target = path.with_name(f"{path.name}.mp4")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_clip(clip, target)
        return target
    [sound] = pipeline.decode_audio([latents])
    target = path.with_name(f"{path.name}.wav")
    write_wav(target, sound, pipeline.defaults.sample_rate)
    return target


def file_name(clip_id: str) -> str:
    """Return an id as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", clip_id)[-MAX_NAME_LENGTH:]
