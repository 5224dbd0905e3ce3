"""I3D: Inception-v1 with its filters inflated to three dimensions, for 400 classes of actions.

Source: Carreira and Zisserman, "Quo Vadis, Action Recognition?" (arXiv 1705.07750); names and shapes of the weights are
those of `i3d_pretrained_400.pt`, the PyTorch port that FVD is computed with (as in VideoGPT, TATS and JavisBench).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.judges.i3d.config import NUM_CLASSES, I3DConfig

# Channels of the branches: 1x1; 1x1, 3x3; 1x1, 3x3; pool, 1x1.
_MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
_POOLED_STEPS = 2  # time steps averaged before the logits, sliding by one

Size3 = tuple[int, int, int]  # time, height, width


class I3D(nn.Module):
    """Logits of clips. In training mode only the batch normalisation differs: there is no dropout."""

    _STAGES: ClassVar[tuple[str, ...]] = (
        "Conv3d_1a_7x7",
        "MaxPool3d_2a_3x3",
        "Conv3d_2b_1x1",
        "Conv3d_2c_3x3",
        "MaxPool3d_3a_3x3",
        "Mixed_3b",
        "Mixed_3c",
        "MaxPool3d_4a_3x3",
        "Mixed_4b",
        "Mixed_4c",
        "Mixed_4d",
        "Mixed_4e",
        "Mixed_4f",
        "MaxPool3d_5a_2x2",
        "Mixed_5b",
        "Mixed_5c",
    )

    def __init__(self, config: I3DConfig | None = None) -> None:
        super().__init__()
        self.config = config or I3DConfig()
        stem, deeper = self.config.channels(64), self.config.channels(192)
        self.Conv3d_1a_7x7 = ConvUnit(3, stem, (7, 7, 7), (2, 2, 2))
        self.MaxPool3d_2a_3x3 = SamePool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = ConvUnit(stem, stem, (1, 1, 1))
        self.Conv3d_2c_3x3 = ConvUnit(stem, deeper, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = SamePool((1, 3, 3), (1, 2, 2))
        self.MaxPool3d_4a_3x3 = SamePool((3, 3, 3), (2, 2, 2))
        self.MaxPool3d_5a_2x2 = SamePool((2, 2, 2), (2, 2, 2))
        channels = deeper
        for name, published in _MIXED.items():
            block = InceptionBlock(channels, [self.config.channels(number) for number in published])
            self.add_module(name, block)
            channels = block.out_channels
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(channels, NUM_CLASSES, 1)})

    def forward(self, video: Tensor) -> Tensor:
        """float (B, 400) of videos (B, 3, T, H, W) in [-1, 1]: class logits averaged over time; T of at least 9."""
        hidden = video
        for name in self._STAGES:
            hidden = self.get_submodule(name)(hidden)  # (B, C, T / 8, H / 32, W / 32) in the end
        # Not by F.avg_pool3d, which CPUs have in float32 alone.
        pooled = hidden.mean(dim=(3, 4)).unfold(2, _POOLED_STEPS, 1).mean(dim=-1)  # (B, C, T / 8 - 1)
        return self.logits["conv3d"](pooled[..., None, None]).mean(dim=(2, 3, 4))


class InceptionBlock(nn.Module):
    """Four branches over the same input, side by side in the output."""

    def __init__(self, in_channels: int, channels: list[int]) -> None:
        super().__init__()
        self.b0 = ConvUnit(in_channels, channels[0], (1, 1, 1))
        self.b1a = ConvUnit(in_channels, channels[1], (1, 1, 1))
        self.b1b = ConvUnit(channels[1], channels[2], (3, 3, 3))
        self.b2a = ConvUnit(in_channels, channels[3], (1, 1, 1))
        self.b2b = ConvUnit(channels[3], channels[4], (3, 3, 3))
        self.b3a = SamePool((3, 3, 3), (1, 1, 1))
        self.b3b = ConvUnit(in_channels, channels[5], (1, 1, 1))
        self.out_channels = channels[0] + channels[2] + channels[4] + channels[5]

    def forward(self, hidden: Tensor) -> Tensor:
        branches = (
            self.b0(hidden),
            self.b1b(self.b1a(hidden)),
            self.b2b(self.b2a(hidden)),
            self.b3b(self.b3a(hidden)),
        )
        return torch.cat(branches, dim=1)


class ConvUnit(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Size3, stride: Size3 = (1, 1, 1)) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-5, momentum=1e-3)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(pad_same(hidden, self.kernel, self.stride))))


class SamePool(nn.Module):
    """Maximum over windows. The zeros at the border never win, since every input comes out of a ReLU."""

    def __init__(self, kernel: Size3, stride: Size3) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, hidden: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(hidden, self.kernel, self.stride), self.kernel, self.stride)


def pad_same(hidden: Tensor, kernel: Size3, stride: Size3) -> Tensor:
    """(B, C, T, H, W) with the zeros of TensorFlow's SAME: ceil(size / stride) windows; an odd one comes last."""
    padding: list[int] = []
    for size, length, step in zip(hidden.shape[2:], kernel, stride, strict=True):
        total = max(0, (math.ceil(size / step) - 1) * step + length - size)
        padding = [total // 2, total - total // 2, *padding]  # the last axis comes first
    return F.pad(hidden, padding) if any(padding) else hidden
