"""Stems of ImageBind, which turn the inputs of each modality into tokens, positions included.

Source: docs/upstream/imagebind.md, section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.imagebind.config import FRAMES_PER_TOKEN, AudioConfig, ImageConfig, ImuConfig, TextConfig, VisionConfig

STEM_EPS = 1e-5  # of the LayerNorm in a stem


class ClipTokens(nn.Module):
    """Clips (N, 3, frames_per_clip, S, S), or images (N, 3, S, S) as clips that stand still -> (N, 1 + P, D)."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.frames_per_clip = config.frames_per_clip
        self.cls_token = _embedding(1, 1, config.width)
        self.rgbt_stem = ClipStem(config)
        self.pos_embedding_helper = Positions(config.num_tokens, config.width)

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.ndim == 4:
            inputs = inputs.unsqueeze(2).expand(-1, -1, self.frames_per_clip, -1, -1)
        return self.pos_embedding_helper(_after_class(self.cls_token, self.rgbt_stem(inputs)))


class ImageTokens(nn.Module):
    """One-channel images (N, 1, S, S) -> (N, 1 + P, D). The name of the stem differs between modalities."""

    def __init__(self, config: ImageConfig, stem: str) -> None:
        super().__init__()
        self.stem = stem
        self.cls_token = _embedding(1, 1, config.width)
        self.add_module(stem, PatchStem(config.width, config.patch_size, config.patch_size))
        self.pos_embedding_helper = Positions(config.num_tokens, config.width)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.pos_embedding_helper(_after_class(self.cls_token, getattr(self, self.stem)(inputs)))


class AudioTokens(nn.Module):
    """Mel spectrograms (N, 1, mel_bins, mel_frames) -> (N, 1 + P, D), mel by mel and in it by time."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.cls_token = _embedding(1, 1, config.width)
        self.rgbt_stem = PatchStem(config.width, config.patch_size, config.patch_stride)
        self.pos_embedding_helper = Positions(config.num_tokens, config.width)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.pos_embedding_helper(_after_class(self.cls_token, self.rgbt_stem(inputs)))


class ImuTokens(nn.Module):
    """Motion sensors (N, channels, samples), one token per window of samples -> (N, 1 + windows, D)."""

    def __init__(self, config: ImuConfig) -> None:
        super().__init__()
        self.window = config.window
        self.cls_token = _embedding(1, 1, config.width)
        self.imu_stem = ImuStem(config)
        self.pos_embed = _embedding(1, config.num_tokens, config.width)

    def forward(self, inputs: Tensor) -> Tensor:
        windows = inputs.unfold(-1, self.window, self.window)  # (N, channels, windows, window)
        tokens = self.imu_stem(windows.transpose(1, 2).flatten(2))
        return _after_class(self.cls_token, tokens) + self.pos_embed


class TextTokens(nn.Module):
    """Ids (N, L) -> (N, L, D). The mask is part of the checkpoint; attention makes the same one by itself."""

    mask: Tensor

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.pos_embed = _embedding(1, config.context_length, config.width)
        above = torch.full((config.context_length, config.context_length), float("-inf")).triu(1)
        self.register_buffer("mask", above)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) + self.pos_embed[:, : ids.shape[1]]


class ClipStem(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        patches = Patches((config.width, 3, FRAMES_PER_TOKEN, config.patch_size, config.patch_size), config.patch_size)
        self.proj = nn.Sequential(nn.Identity(), patches)

    def forward(self, clips: Tensor) -> Tensor:
        pairs = clips.unflatten(2, (-1, FRAMES_PER_TOKEN)).transpose(1, 2)  # (N, T / 2, 3, 2, S, S)
        return self.proj(pairs.flatten(0, 1)).unflatten(0, pairs.shape[:2]).flatten(1, 2)


class PatchStem(nn.Module):
    def __init__(self, width: int, patch_size: int, stride: int) -> None:
        super().__init__()
        self.proj = Patches((width, 1, patch_size, patch_size), stride)
        self.norm_layer = nn.LayerNorm(width, eps=STEM_EPS)

    def forward(self, planes: Tensor) -> Tensor:
        return self.norm_layer(self.proj(planes))


class Patches(nn.Module):
    """A convolution as one matrix product, (N, ..., H, W) -> (N, P, D), row by row.

    A 3-D convolution is slow in bfloat16, and cuDNN rounds those in float32 to TF32 by default.

    Args:
        shape: of the weight, (D, ..., patch, patch); what stands between is that of the inputs.
    """

    def __init__(self, shape: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.weight = _embedding(*shape)
        self.stride = stride

    def forward(self, planes: Tensor) -> Tensor:
        size = self.weight.shape[-1]
        patches = planes.unfold(-2, size, self.stride).unfold(-2, size, self.stride)  # (N, ..., rows, columns, p, p)
        patches = patches.movedim((-4, -3), (1, 2)).flatten(3).flatten(1, 2)
        return F.linear(patches, self.weight.flatten(1))


class ImuStem(nn.Module):
    def __init__(self, config: ImuConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.channels * config.window, config.width, bias=False)
        self.norm_layer = nn.LayerNorm(config.width, eps=STEM_EPS)

    def forward(self, windows: Tensor) -> Tensor:
        return self.norm_layer(self.proj(windows))


class Positions(nn.Module):
    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        self.pos_embed = _embedding(1, num_tokens, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.pos_embed


def _after_class(cls_token: Tensor, tokens: Tensor) -> Tensor:
    return torch.cat([cls_token.expand(len(tokens), -1, -1), tokens], dim=1)


def _embedding(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * 0.02)
