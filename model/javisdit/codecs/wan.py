"""Wan2.1's video autoencoder: diffusers' `AutoencoderKLWan`, loaded from a Diffusers folder or the original file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn

from core.checkpoint_kinds import looks_like
from core.state_files import StateFiles
from model.javisdit.codecs.files import load_network, read_config, save_network, unit_pixels
from model.javisdit.network.sizes import FRAMES_PER_STEP, PIXELS_PER_LATENT, codec_latent_size
from model.javisdit.weights.tensor_names import from_wan_vae_original

# Pixels times frames of the largest clip that is computed whole. Larger clips (480p from 49 frames on, 360p at 81
# frames) are cut into overlapping tiles of 256x256 pixels; no published clip at 240p is.
MAX_UNTILED_PIXELS = 2**24
PUBLISHED = (16, 16, PIXELS_PER_LATENT)  # latent channels, channel means, pixels per latent side


class WanVideoCodec(nn.Module):
    """Video codec that reduces pixels by 8x8 in space and, after the first frame, by 4 in time.

    The clips of a batch are processed one at a time. Not thread-safe: diffusers keeps the state of a running clip in
    the network.

    Raises:
        ValueError: for another autoencoder of the same class, such as Wan2.2's.
    """

    mean: Tensor  # (1, C, 1, 1, 1)
    std: Tensor

    def __init__(self, autoencoder: AutoencoderKLWan) -> None:
        super().__init__()
        config = autoencoder.config
        _check_published(config)
        autoencoder.enable_slicing()
        self.autoencoder = autoencoder
        self.register_buffer("mean", torch.tensor(config["latents_mean"]).view(1, -1, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["latents_std"]).view(1, -1, 1, 1, 1), persistent=False)

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> Self:
        """Read a Diffusers folder.

        Raises:
            ValueError: if the tensors do not match the folder's config.
        """
        config = read_config(folder)
        tensors = StateFiles(folder).tensors(dtype)
        return cls(load_network(lambda: AutoencoderKLWan.from_config(config), tensors, str(folder)))

    @classmethod
    def from_original(cls, file: str | Path, dtype: torch.dtype = torch.float32) -> Self:
        """Read `Wan2.1_VAE.pth`, or the same tensors as safetensors; the width is inferred from their shapes.

        Raises:
            ValueError: if the file contains another network.
        """
        files = StateFiles(file)
        config = infer_wan_config(files.shapes, str(file))
        tensors = ((from_wan_vae_original(name), tensor) for name, tensor in files.tensors(dtype))
        return cls(load_network(lambda: AutoencoderKLWan(**config), tensors, str(file)))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a Diffusers folder; `dtype` casts the stored weights."""
        save_network(self.autoencoder, Path(folder), dtype)

    @property
    def latent_channels(self) -> int:
        return self.mean.shape[1]

    def latent_size(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """See `VideoCodec.latent_size`."""
        return codec_latent_size(num_frames, height, width, PIXELS_PER_LATENT)

    def encode(self, video: Tensor) -> Tensor:
        """See `VideoCodec.encode`."""
        return self.encode_pixels(unit_pixels(video).permute(0, 4, 1, 2, 3))

    def decode(self, latents: Tensor) -> Tensor:
        """See `VideoCodec.decode`."""
        pixels = self.decode_pixels(latents).permute(0, 2, 3, 4, 1)
        return ((pixels + 1) * 127.5).round().to(torch.uint8)

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Encode pixels, float (B, 3, 4n + 1, H, W) in [-1, 1], to the mode of the posterior.

        Returns:
            float32 (B, C, n + 1, H / 8, W / 8), normalised.

        Raises:
            ValueError: if the number of frames is not 4n + 1 (the release cuts the rest silently), or a side is not a
                multiple of 8.
        """
        self.latent_size(*pixels.shape[2:])
        self._tile(pixels.shape[2:].numel())
        latents = self.autoencoder.encode(pixels.to(self.autoencoder.dtype)).latent_dist.mode()
        return (latents.float() - self.mean) / self.std

    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Decode latents, float (B, C, n + 1, h, w), to pixels, float32 (B, 3, 4n + 1, 8 h, 8 w) in [-1, 1]."""
        steps, height, width = latents.shape[2:]
        num_frames = (steps - 1) * FRAMES_PER_STEP + 1
        self._tile(num_frames * height * width * PIXELS_PER_LATENT**2)
        scaled = latents * self.std + self.mean
        return self.autoencoder.decode(scaled.to(self.autoencoder.dtype)).sample.float()

    def _tile(self, num_pixels: int) -> None:
        """Turn tiling on or off for a clip with this number of pixels in all frames together."""
        self.autoencoder.use_tiling = num_pixels > MAX_UNTILED_PIXELS


def infer_wan_config(shapes: dict[str, tuple[int, ...]], source: str) -> dict[str, Any]:
    """Infer the settings that differ from diffusers' defaults (the published network) from tensor shapes.

    Args:
        shapes: tensor name, in the original naming, -> shape.
        source: name of the checkpoint in error messages.

    Raises:
        ValueError: if the tensors belong to another network.
    """
    if "encoder.conv1.weight" not in shapes or "conv2.weight" not in shapes:
        raise ValueError(
            f"{source} is not the original video autoencoder of Wan2.1: it looks like {looks_like(shapes)}. "
            "Give Wan2.1_VAE.pth, or a Diffusers folder with its config.json."
        )
    return {"base_dim": shapes["encoder.conv1.weight"][0], "z_dim": shapes["conv2.weight"][0]}


def _check_published(config: dict[str, Any]) -> None:
    found = (config["z_dim"], len(config["latents_mean"]), config["scale_factor_spatial"])
    if found != PUBLISHED:
        raise ValueError(
            f"The autoencoder has {found[0]} latent channels, {found[1]} channel means and {found[2]} pixels per "
            f"latent side, but Wan2.1's has {PUBLISHED}: give Wan2.1_VAE.pth or its Diffusers folder."
        )
