"""Codecs between clips and latents.  Both directions are deterministic; latents are normalised per channel.

The tiny codecs are diffusers' 2-D `AutoencoderKL`: over groups of 4 frames stacked as channels for video (the causal
3-D Wan VAE needs 19 s a clip on two CPU cores), over log-mel in AudioLDM2's layout for audio, with Griffin-Lim.
"""

import json
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from media.mel import HOP_LENGTH, NUM_MELS, invert_log_mel, log_mel, normalize_waveform

FRAMES_PER_GROUP = 4
# Rows: brightness, red against blue, green against both; hue is doubled, or training learns it last.
OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-0.5, 1.0, -0.5]]) * torch.tensor([[1 / 3], [1.0], [1.0]])
CODEC_CONFIG_NAME = "codec.json"


class VideoCodec(Protocol):
    """Pixels to latents and back."""

    def encode(self, video: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) with T = 4n + 1 -> float32 (B, C, n + 1, h, w)."""

    def decode(self, latents: Tensor) -> Tensor:
        """float32 (B, C, n + 1, h, w) -> uint8 (B, 4n + 1, H, W, 3)."""


class AudioCodec(Protocol):
    """Waveforms to latents and back."""

    def encode(self, waveform: Tensor) -> Tensor:
        """float (B, samples) at 16 kHz -> float32 (B, C, T, M)."""

    def decode(self, latents: Tensor, num_samples: int) -> Tensor:
        """float32 (B, C, T, M) -> float32 (B, num_samples)."""


@dataclass(frozen=True)
class CodecConfig:
    """What the autoencoder's own config does not say."""

    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    pixel_fold: int = 1  # video: square blocks of pixels moved into channels before the first convolution
    mel_floor: float = -11.5  # audio: log-mel below this is silence
    mel_scale: float = 1.0  # audio: network input is (log-mel - mel_floor) / mel_scale - 1


class TinyCodec(nn.Module):
    """What the two tiny codecs share: an `AutoencoderKL`, latent statistics, files."""

    mean: Tensor  # (1, C, 1, 1)
    std: Tensor

    def __init__(self, autoencoder: AutoencoderKL, config: CodecConfig) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.config = config
        self.register_buffer("mean", torch.tensor(config.latents_mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.latents_std).view(1, -1, 1, 1), persistent=False)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        folder = Path(folder)
        stored = nn.Module.to(deepcopy(self.autoencoder), dtype) if dtype else self.autoencoder
        stored.save_pretrained(folder)
        (folder / CODEC_CONFIG_NAME).write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        folder = Path(folder)
        values: dict[str, Any] = json.loads((folder / CODEC_CONFIG_NAME).read_text(encoding="utf-8"))
        typed: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        autoencoder = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
        return cls(autoencoder, CodecConfig(**typed)).eval().requires_grad_(False)

    def _encode_planes(self, planes: Tensor) -> Tensor:
        return (self.autoencoder.encode(planes).latent_dist.mode() - self.mean) / self.std

    def _decode_planes(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents * self.std + self.mean).sample


class FrameGroupVideoCodec(TinyCodec):
    """Groups of 4 frames, each a 2-D image of 12 (times pixel_fold squared) channels; the first frame is one alone."""

    def encode(self, video: Tensor) -> Tensor:
        """See `VideoCodec.encode`.

        Raises:
            ValueError: when the number of frames is not 4n + 1.
        """
        if video.shape[1] % FRAMES_PER_GROUP != 1:
            raise ValueError(f"{video.shape[1]} frames do not make whole groups: cut the clip to 4n + 1 frames.")
        latents = self._encode_planes(self.to_planes(video).flatten(0, 1))
        return latents.unflatten(0, (video.shape[0], -1)).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """See `VideoCodec.decode`."""
        planes = self._decode_planes(latents.transpose(1, 2).flatten(0, 1)).unflatten(0, (latents.shape[0], -1))
        return self.from_planes(planes)

    def to_planes(self, video: Tensor) -> Tensor:
        """uint8 (B, 4n + 1, H, W, 3) -> float (B, n + 1, channels, H / fold, W / fold), opponent colours."""
        padded = torch.cat([video[:, :1].expand(-1, FRAMES_PER_GROUP - 1, -1, -1, -1), video], dim=1)
        colours = (padded.float() / 127.5 - 1) @ OPPONENT.T.to(video.device)
        groups = colours.unflatten(1, (-1, FRAMES_PER_GROUP)).permute(0, 1, 2, 5, 3, 4).flatten(2, 3)
        return F.pixel_unshuffle(groups, self.config.pixel_fold)

    def from_planes(self, planes: Tensor) -> Tensor:
        """The inverse of `to_planes`, rounded to bytes."""
        groups = F.pixel_shuffle(planes, self.config.pixel_fold).unflatten(2, (FRAMES_PER_GROUP, 3))
        colours = groups.permute(0, 1, 2, 4, 5, 3).flatten(1, 2)[:, FRAMES_PER_GROUP - 1 :]
        frames = colours @ torch.linalg.inv(OPPONENT).T.to(planes.device)
        return ((frames + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class MelAudioCodec(TinyCodec):
    """Log-mel autoencoder, 4 mel frames and 4 bands to a latent step, with Griffin-Lim for a vocoder."""

    DOWNSAMPLING = 4
    FRAME_MULTIPLE = 8  # mel frames are padded to this (facts_autoencoders_text section 2)

    def encode(self, waveform: Tensor) -> Tensor:
        """See `AudioCodec.encode`.  Loudness is normalised away, as in the release."""
        return self._encode_planes(self.to_planes(waveform))

    def decode(self, latents: Tensor, num_samples: int) -> Tensor:
        """See `AudioCodec.decode`."""
        planes = self._decode_planes(latents)
        log = (planes[:, 0] + 1) * self.config.mel_scale + self.config.mel_floor
        return invert_log_mel(log, num_samples)

    def to_planes(self, waveform: Tensor) -> Tensor:
        """float (B, samples) -> float (B, 1, mel frames, 64), silence at -1."""
        log = log_mel(normalize_waveform(waveform), self.num_mel_frames(waveform.shape[-1]), self.config.mel_floor)
        return (log.clamp(min=self.config.mel_floor)[:, None] - self.config.mel_floor) / self.config.mel_scale - 1

    @classmethod
    def num_mel_frames(cls, num_samples: int) -> int:
        return -(-(num_samples // HOP_LENGTH) // cls.FRAME_MULTIPLE) * cls.FRAME_MULTIPLE

    def latent_size(self, num_samples: int) -> tuple[int, int]:
        """(T, M) of the latents of so many samples."""
        return self.num_mel_frames(num_samples) // self.DOWNSAMPLING, NUM_MELS // self.DOWNSAMPLING
