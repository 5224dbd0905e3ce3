"""The codecs of the tiny preset: diffusers' 2-D `AutoencoderKL` with latent statistics.

The video codec works on groups of 4 frames stacked as channels (the causal 3-D Wan VAE needs 19 s per clip on two CPU
cores). The audio codec works on log-mel in AudioLDM2's layout and uses Griffin-Lim as vocoder.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from core.state_files import StateFiles
from media.mel import HOP_LENGTH, NUM_MELS, invert_log_mel, log_mel, normalize_waveform
from model.javisdit.codecs.audio_lengths import num_mel_frames
from model.javisdit.codecs.files import load_network, read_config, save_network, unit_pixels
from model.javisdit.network.sizes import FRAMES_PER_STEP, check_num_frames, codec_latent_size

# Rows: brightness, red minus blue, green minus both. The hue rows are doubled; otherwise training learns hue last.
OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-0.5, 1.0, -0.5]]) * torch.tensor([[1 / 3], [1.0], [1.0]])
CODEC_CONFIG_NAME = "codec.json"


@dataclass(frozen=True)
class CodecConfig:
    """Settings of a tiny codec that the autoencoder's own config does not contain."""

    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]
    pixel_fold: int = 1  # video: side of the pixel blocks moved into channels before the first convolution
    mel_floor: float = -11.5  # audio: log-mel below this is silence
    mel_scale: float = 1.0  # audio: network input is (log-mel - mel_floor) / mel_scale - 1


class TinyCodec(nn.Module, ABC):
    """Base class of the two tiny codecs: an `AutoencoderKL`, latent statistics, reading and writing of files.

    Raises:
        ValueError: if the autoencoder has another number of input channels than the codec gives it.
    """

    mean: Tensor  # (1, C, 1, 1)
    std: Tensor

    def __init__(self, autoencoder: AutoencoderKL, config: CodecConfig) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.config = config
        self.register_buffer("mean", torch.tensor(config.latents_mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.latents_std).view(1, -1, 1, 1), persistent=False)
        if autoencoder.config["in_channels"] != self.num_planes:
            raise ValueError(
                f"The autoencoder has {autoencoder.config['in_channels']} input channels, but {type(self).__name__} "
                f"gives it {self.num_planes}: use the autoencoder that was trained for this codec."
            )

    @property
    @abstractmethod
    def num_planes(self) -> int:
        """Input channels of the autoencoder."""

    @property
    def latent_channels(self) -> int:
        return self.mean.shape[1]

    @property
    def downsampling(self) -> int:
        """Input pixels per latent along each axis."""
        return 2 ** (len(self.autoencoder.config["block_out_channels"]) - 1)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a folder for `from_pretrained`; `dtype` casts the stored weights."""
        folder = Path(folder)
        save_network(self.autoencoder, folder, dtype)
        (folder / CODEC_CONFIG_NAME).write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> Self:
        """Read a folder written by `save_pretrained`.

        Raises:
            ValueError: if the tensors do not match the folder's config.
        """
        folder = Path(folder)
        values: dict[str, Any] = json.loads((folder / CODEC_CONFIG_NAME).read_text(encoding="utf-8"))
        typed: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        config, tensors = read_config(folder), StateFiles(folder).tensors(dtype)
        autoencoder = load_network(lambda: AutoencoderKL.from_config(config), tensors, str(folder))
        return cls(autoencoder, CodecConfig(**typed)).eval()

    def _encode_planes(self, planes: Tensor) -> Tensor:
        posterior = self.autoencoder.encode(planes.to(self.autoencoder.dtype)).latent_dist
        return (posterior.mode().float() - self.mean) / self.std

    def _decode_planes(self, latents: Tensor) -> Tensor:
        scaled = latents * self.std + self.mean
        return self.autoencoder.decode(scaled.to(self.autoencoder.dtype)).sample.float()


class FrameGroupVideoCodec(TinyCodec):
    """Video codec on groups of 4 frames, each group a 2-D image of 12 * pixel_fold^2 channels.

    The first frame forms a group alone.
    """

    def encode(self, video: Tensor) -> Tensor:
        """See `VideoCodec.encode`."""
        check_num_frames(video.shape[1])
        latents = self._encode_planes(self.to_planes(video).flatten(0, 1))
        return latents.unflatten(0, (video.shape[0], -1)).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """See `VideoCodec.decode`."""
        planes = self._decode_planes(latents.transpose(1, 2).flatten(0, 1)).unflatten(0, (latents.shape[0], -1))
        return self.from_planes(planes)

    def latent_size(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """See `VideoCodec.latent_size`."""
        return codec_latent_size(num_frames, height, width, self.config.pixel_fold * self.downsampling)

    @property
    def num_planes(self) -> int:
        return FRAMES_PER_STEP * 3 * self.config.pixel_fold**2

    def to_planes(self, video: Tensor) -> Tensor:
        """Convert pixels, uint8 or float (B, 4n + 1, H, W, 3), to the autoencoder's input in opponent colours.

        Returns:
            float (B, n + 1, channels, H / fold, W / fold).
        """
        padded = torch.cat([video[:, :1].expand(-1, FRAMES_PER_STEP - 1, -1, -1, -1), video], dim=1)
        colours = unit_pixels(padded) @ OPPONENT.T.to(video.device)
        groups = colours.unflatten(1, (-1, FRAMES_PER_STEP)).permute(0, 1, 2, 5, 3, 4).flatten(2, 3)
        return F.pixel_unshuffle(groups, self.config.pixel_fold)

    def from_planes(self, planes: Tensor) -> Tensor:
        """Invert `to_planes` and round to uint8 (B, 4n + 1, H, W, 3)."""
        groups = F.pixel_shuffle(planes, self.config.pixel_fold).unflatten(2, (FRAMES_PER_STEP, 3))
        colours = groups.permute(0, 1, 2, 4, 5, 3).flatten(1, 2)[:, FRAMES_PER_STEP - 1 :]
        frames = colours @ torch.linalg.inv(OPPONENT).T.to(planes.device)
        return ((frames + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class MelAudioCodec(TinyCodec):
    """Audio codec on log-mel; one latent covers 4 mel frames and 4 bands. Griffin-Lim serves as vocoder."""

    def encode(self, waveform: Tensor) -> Tensor:
        """See `AudioCodec.encode`."""
        return self._encode_planes(self.to_planes(waveform))

    def decode(self, latents: Tensor, num_samples: int) -> Tensor:
        """See `AudioCodec.decode`."""
        planes = self._decode_planes(latents)
        log = (planes[:, 0] + 1) * self.config.mel_scale + self.config.mel_floor
        return invert_log_mel(log, num_samples)

    @property
    def samples_per_step(self) -> int:
        return HOP_LENGTH * self.downsampling

    def num_real_steps(self, num_samples: int) -> int:
        """See `AudioCodec.num_real_steps`; all, because mel frames past the end are silent."""
        return self.latent_size(num_samples)[0]

    def latent_size(self, num_samples: int) -> tuple[int, int]:
        """See `AudioCodec.latent_size`."""
        return num_mel_frames(num_samples) // self.downsampling, NUM_MELS // self.downsampling

    @property
    def num_planes(self) -> int:
        return 1

    def to_planes(self, waveform: Tensor) -> Tensor:
        """Convert waveforms, float (B, samples), to the autoencoder's input, float (B, 1, mel frames, 64).

        Silence is -1.
        """
        log = log_mel(normalize_waveform(waveform), num_mel_frames(waveform.shape[-1]), self.config.mel_floor)
        return (log.clamp(min=self.config.mel_floor)[:, None] - self.config.mel_floor) / self.config.mel_scale - 1
