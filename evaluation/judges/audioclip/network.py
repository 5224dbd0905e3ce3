"""AudioCLIP's audio head: a ResNeXt-50 (32x4d) with attention beside its stages, on the decibels of the front end.

Facts, MIT-licensed sources: AndreyGuzhov/AudioCLIP, AndreyGuzhov/ESResNeXt-fbsp; arXiv 2106.13043, 2104.11587.
Modules bear their published names; torchvision's ResNeXt has the same ones but for the attention.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from evaluation.judges.audioclip.config import EMBED_DIM, AudioClipConfig
from evaluation.judges.audioclip.front_end import (
    NUM_BANDS,
    SplineFilters,
    blackman_harris,
    cut_frames,
    decibels,
    to_unit_range,
)

ALONG_FREQUENCY, ALONG_TIME, ALONG_BOTH = (3, 1), (1, 5), (3, 5)  # kernels of the attention


class Attention(nn.Module):
    """Weights in (0, 1) for the output of a stage, from its input."""

    def __init__(self, width: int, out_width: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(width, width, kernel, padding=padding, groups=width)
        self.conv_point = nn.Conv2d(width, out_width, 1)
        self.bn = nn.BatchNorm2d(out_width)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """(B, width, h, w) -> (B, out_width, *size)."""
        return self.bn(self.conv_point(self.conv_depth(F.adaptive_max_pool2d(x, size)))).sigmoid()


class AudioHead(nn.Module):
    """Sounds to embeddings. Weights are random until they are loaded; always in evaluation mode."""

    window: Tensor

    def __init__(self, config: AudioClipConfig) -> None:
        super().__init__()
        self.config = config
        stem = config.stem_width
        widths = [stem, *(stem * Bottleneck.expansion * 2**stage for stage in range(4))]
        self.register_buffer("window", blackman_harris())
        self.fbsp = SplineFilters()
        self.conv1 = nn.Conv2d(NUM_BANDS, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(config, stage, widths[stage], widths[stage + 1]) for stage in range(4)
        )
        kernels = (ALONG_FREQUENCY, ALONG_TIME, ALONG_FREQUENCY, ALONG_TIME)
        self.att1, self.att2, self.att3, self.att4 = (
            Attention(widths[stage], widths[stage + 1], kernel) for stage, kernel in enumerate(kernels)
        )
        self.att5 = Attention(widths[-1], widths[-1], ALONG_BOTH)
        self.fc = nn.Linear(widths[-1], EMBED_DIM)
        self.eval()

    def forward(self, samples: Tensor) -> Tensor:
        """Samples float32 (B, N) in 16-bit units, of 44.1 kHz -> embeddings (B, 1024), not normalised."""
        assert samples.ndim == 2, f"{samples.shape=}"
        picture = decibels(cut_frames(to_unit_range(samples), self.window), self.fbsp)  # (B, 3, 341, T)
        x = self.bn1(self.conv1(picture.to(self.conv1.weight.dtype))).relu()
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        for stage, attention in zip(stages, (self.att1, self.att2, self.att3, self.att4), strict=True):
            given, x = x, stage(x)
            x = x * attention(given, x.shape[-2:])
        pooled = F.adaptive_avg_pool2d(x, 1)
        return self.fc((pooled * self.att5(x, pooled.shape[-2:])).flatten(1))


def _stage(config: AudioClipConfig, stage: int, width: int, out_width: int) -> nn.Sequential:
    """Bottleneck blocks; the first brings the picture to the new width, and but for stage 0 to half its size."""
    planes, stride = out_width // Bottleneck.expansion, 1 if stage == 0 else 2
    shortcut = nn.Sequential(nn.Conv2d(width, out_width, 1, stride=stride, bias=False), nn.BatchNorm2d(out_width))
    sizes = {"groups": config.groups, "base_width": config.width_per_group}
    first = Bottleneck(width, planes, stride, shortcut, **sizes)
    return nn.Sequential(first, *(Bottleneck(out_width, planes, **sizes) for _ in range(1, config.blocks[stage])))
