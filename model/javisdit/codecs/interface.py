"""Codecs between clips and latents: what a pipeline asks of one, and from a path to the codec that lies there.

Both directions are deterministic, and latents are normalised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from model.javisdit.codecs.audioldm2 import VAE_FOLDER, VOCODER_FOLDER, AudioLDM2Codec
from model.javisdit.codecs.files import read_config
from model.javisdit.codecs.tiny import CODEC_CONFIG_NAME, FrameGroupVideoCodec, MelAudioCodec
from model.javisdit.codecs.wan import WanVideoCodec
from model.javisdit.components import Part
from model.javisdit.network.config import CONFIG_NAME

WAN_CLASS = "AutoencoderKLWan"
NUM_NAMES_SHOWN = 5


class VideoCodec(Part, Protocol):
    """Pixels to latents and back."""

    @property
    def latent_channels(self) -> int: ...

    def latent_size(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T, H, W) of the latents of such a clip.

        Raises:
            ValueError: when the frames are not 4n + 1, or the pixels no whole latents.
        """

    def encode(self, video: Tensor) -> Tensor:
        """uint8, or float32 in [-1, 1], (B, 4n + 1, H, W, 3) -> float32 (B, C, n + 1, h, w).

        Raises:
            ValueError: for sizes that `latent_size` refuses, or floats of another range.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """float32 (B, C, n + 1, h, w) -> uint8 (B, 4n + 1, H, W, 3)."""

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Writes a folder for `load_video_codec`; `dtype` casts the stored weights."""


class AudioCodec(Part, Protocol):
    """Waveforms to latents and back."""

    @property
    def latent_channels(self) -> int: ...

    def latent_size(self, num_samples: int) -> tuple[int, int]:
        """(T, M) of the latents of so many samples, as training encodes them."""

    def encode(self, waveform: Tensor) -> Tensor:
        """float (B, samples) at 16 kHz -> float32 (B, C, T, M). Loudness is normalised away, as in the release."""

    def decode(self, latents: Tensor, num_samples: int) -> Tensor:
        """float32 (B, C, T, M) -> float32 (B, num_samples), cut, or filled up with zeros."""

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Writes a folder for `load_audio_codec`; `dtype` casts the stored weights."""


def load_video_codec(path: str | Path, dtype: torch.dtype = torch.float32) -> VideoCodec:
    """The video codec at `path`, on the CPU: the tiny preset's, or Wan2.1's as the original file or from Diffusers.

    Raises:
        ValueError: when there is none, or its weights do not fit.
    """
    path = Path(path)
    if (path / CODEC_CONFIG_NAME).is_file():
        return FrameGroupVideoCodec.from_pretrained(path, dtype)
    if path.is_file():
        return WanVideoCodec.from_original(path, dtype)
    if _diffusers_class(path) == WAN_CLASS:
        return WanVideoCodec.from_pretrained(path, dtype)
    raise ValueError(
        f"{path} {_found(path)}, so it is no video codec: give a folder with {CODEC_CONFIG_NAME} (tiny), a Diffusers "
        f"folder whose {CONFIG_NAME} is of class {WAN_CLASS}, or the file Wan2.1_VAE.pth."
    )


def load_audio_codec(path: str | Path, dtype: torch.dtype = torch.float32) -> AudioCodec:
    """The audio codec at `path`, on the CPU: the tiny preset's or AudioLDM2's.

    Raises:
        ValueError: when there is none, or its weights do not fit.
    """
    path = Path(path)
    if (path / CODEC_CONFIG_NAME).is_file():
        return MelAudioCodec.from_pretrained(path, dtype)
    if (path / VAE_FOLDER).is_dir() and (path / VOCODER_FOLDER).is_dir():
        return AudioLDM2Codec.from_pretrained(path, dtype)
    raise ValueError(
        f"{path} {_found(path)}, so it is no audio codec: give a folder with {CODEC_CONFIG_NAME} (tiny), or "
        f"AudioLDM2's with {VAE_FOLDER}/ and {VOCODER_FOLDER}/."
    )


def _diffusers_class(path: Path) -> str | None:
    return read_config(path).get("_class_name") if (path / CONFIG_NAME).is_file() else None


def _found(path: Path) -> str:
    """What is at `path`, for an error message."""
    if not path.exists():
        return "is not there"
    if path.is_file():
        return "is a file"
    if found := _diffusers_class(path):
        return f"is a Diffusers folder of class {found}"
    names = sorted(entry.name for entry in path.iterdir())
    shown = ", ".join(names[:NUM_NAMES_SHOWN]) + (", ..." if len(names) > NUM_NAMES_SHOWN else "")
    return f"is a folder with {shown or 'nothing in it'}"
