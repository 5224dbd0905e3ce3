"""The interface of video and audio codecs, and their loading; the codec class is detected from the files at a path.

Encoding and decoding are deterministic, and latents are normalised.
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
    """Interface of a codec between pixels and latents."""

    @property
    def latent_channels(self) -> int: ...

    def latent_size(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the size (T, H, W) of the latents of a clip.

        Raises:
            ValueError: if the number of frames is not 4n + 1, or a side does not split into whole latents.
        """

    def encode(self, video: Tensor) -> Tensor:
        """Encode pixels (B, 4n + 1, H, W, 3), uint8 or float32 in [-1, 1], to float32 (B, C, n + 1, h, w).

        Raises:
            ValueError: for sizes that `latent_size` rejects, or floats outside [-1, 1].
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents, float32 (B, C, n + 1, h, w), to pixels, uint8 (B, 4n + 1, H, W, 3)."""

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a folder for `load_video_codec`; `dtype` casts the stored weights."""


class AudioCodec(Part, Protocol):
    """Interface of a codec between waveforms and latents."""

    @property
    def latent_channels(self) -> int: ...

    @property
    def samples_per_step(self) -> int:
        """Samples of sound, at 16 kHz, that one latent along T covers."""

    def num_real_steps(self, num_samples: int) -> int:
        """Return how many latents along T hold sound or silent padding; any after them hold padding that is loud."""

    def latent_size(self, num_samples: int) -> tuple[int, int]:
        """Return the size (T, M) of the latents of `num_samples` samples, as encoded for training."""

    def encode(self, waveform: Tensor) -> Tensor:
        """Encode waveforms, float (B, samples) at 16 kHz, to float32 (B, C, T, M).

        Each waveform is scaled to a fixed peak first, as in the release, so its loudness is lost.
        """

    def decode(self, latents: Tensor, num_samples: int) -> Tensor:
        """Decode latents, float32 (B, C, T, M), to float32 (B, num_samples), cut or padded with zeros."""

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a folder for `load_audio_codec`; `dtype` casts the stored weights."""


def load_video_codec(path: str | Path, dtype: torch.dtype = torch.float32) -> VideoCodec:
    """Load the video codec at `path` on the CPU: the tiny preset's, or Wan2.1's (original file or Diffusers folder).

    Raises:
        ValueError: if there is no video codec, or its weights do not fit.
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
        f"folder whose {CONFIG_NAME} has the class {WAN_CLASS}, or the file Wan2.1_VAE.pth."
    )


def load_audio_codec(path: str | Path, dtype: torch.dtype = torch.float32) -> AudioCodec:
    """Load the audio codec at `path` on the CPU: the tiny preset's or AudioLDM2's.

    Raises:
        ValueError: if there is no audio codec, or its weights do not fit.
    """
    path = Path(path)
    if (path / CODEC_CONFIG_NAME).is_file():
        return MelAudioCodec.from_pretrained(path, dtype)
    if (path / VAE_FOLDER).is_dir() and (path / VOCODER_FOLDER).is_dir():
        return AudioLDM2Codec.from_pretrained(path, dtype)
    raise ValueError(
        f"{path} {_found(path)}, so it is no audio codec: give a folder with {CODEC_CONFIG_NAME} (tiny), or "
        f"AudioLDM2's folder with {VAE_FOLDER}/ and {VOCODER_FOLDER}/."
    )


def _diffusers_class(path: Path) -> str | None:
    return read_config(path).get("_class_name") if (path / CONFIG_NAME).is_file() else None


def _found(path: Path) -> str:
    """Describe the content of `path` for an error message."""
    if not path.exists():
        return "does not exist"
    if path.is_file():
        return "is a file"
    if found := _diffusers_class(path):
        return f"is a Diffusers folder of class {found}"
    names = sorted(entry.name for entry in path.iterdir())
    shown = ", ".join(names[:NUM_NAMES_SHOWN]) + (", ..." if len(names) > NUM_NAMES_SHOWN else "")
    return f"is a folder with {shown or 'nothing in it'}"
