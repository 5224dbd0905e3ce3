"""The clips of one prompt as latents: those that the sampler kept, or encoded ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from core.storage import local_copy, resolve_in
from dpo.data.pairs import GEOMETRY
from dpo.data.schema import MODALITIES
from media.clip import MediaError
from media.read import read_clip
from model.javisdit.codecs.latents import AVLatents
from model.javisdit.pipeline import JointAVPipeline


class CandidateLatents:
    """The clips of one prompt as latents; each clip is read or encoded only once."""

    def __init__(self, root: Path, pipeline: JointAVPipeline, channels: dict[str, int]) -> None:
        self._root = root
        self._pipeline = pipeline
        self._channels = channels
        self._found: dict[Any, AVLatents | MediaError] = {}

    def __call__(self, row: Mapping[str, Any], prefix: str = "") -> AVLatents:
        """Return the latents of the clip in a table's row.

        Args:
            row: holds video_path, audio_path and latents_path, whose names begin with `prefix`, and GEOMETRY.

        Raises:
            MediaError: if the clip cannot be used; every row with this clip gets the same error.
        """
        video, audio, kept = (row[f"{prefix}{name}_path"] for name in ("video", "audio", "latents"))
        geometry = {name: row[name] for name in GEOMETRY}
        key = kept or (video, audio, *geometry.values())
        if key not in self._found:
            try:
                self._found[key] = self._load(kept) if kept else self._encode(video, audio, geometry)
            except MediaError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, MediaError):
            raise found
        return found

    def _load(self, name: str) -> AVLatents:
        path = resolve_in(self._root, name)
        try:
            with local_copy(path) as file:
                latents = AVLatents.load(file)
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise MediaError(path, f"holds no latents of the sampler ({error})") from error
        self._check(path, latents)
        return latents

    def _encode(self, video: str, audio: str | None, geometry: dict[str, Any]) -> AVLatents:
        path = resolve_in(self._root, video)
        sound = resolve_in(self._root, audio) if audio else None
        rate = self._pipeline.defaults.sample_rate
        clip = read_clip(path, audio_path=sound, sample_rate=rate, num_channels=1, **geometry)
        if not clip.num_samples:
            raise MediaError(path, "has no sound")
        return self._pipeline.encode_clips([clip])[0]

    def _check(self, path: Path, latents: AVLatents) -> None:
        for name, channels in self._channels.items():
            values = getattr(latents, name)
            if not values.numel():
                raise MediaError(path, f"has no {name} latents")
            if len(values) != channels:
                raise ValueError(
                    f"{path} has {len(values)} {name} channels, but the model works on {channels}: the clips were "
                    "sampled from another model; give that one, or one trained from it, as --model."
                )
            if not torch.isfinite(values).all():
                raise MediaError(path, f"has {name} latents that are not finite and would turn the model into NaN")


def shape_of(latents: AVLatents) -> tuple[Any, ...]:
    """Return what must agree within a pair or a group: latent shapes by modality, frames, height and width."""
    shapes = tuple(tuple(getattr(latents, name).shape) for name in MODALITIES)
    return (*shapes, latents.num_frames, latents.height, latents.width)


SHAPE_NAMES = (*MODALITIES, "num_frames", "height", "width")  # of the values of `shape_of`
