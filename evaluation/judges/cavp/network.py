"""CAVP's two networks. Names are those of the published state dict (Diff-Foley, `cavp_epoch66.ckpt`)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.judges.cavp.config import CavpConfig

NUM_MELS = 128
MELS_PER_STEP = 16  # frames of the spectrogram that one embedding of the sound stands for


class Cavp(nn.Module):
    """Contrastive audio-visual pretraining: an embedding for each frame, and for each 1/4 s of sound."""

    def __init__(self, config: CavpConfig) -> None:
        super().__init__()
        self.config = config
        self.video_encoder = SlowOnly(config)
        self.video_project_head = nn.Linear(config.video_features, config.embed_dim)
        self.spec_encoder = Cnn14(config)
        self.logit_scale = nn.Parameter(torch.zeros(()))  # of the training's loss

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Frames (B, 3, T, image_size, image_size) in [0, 1] -> (B, T, embed_dim), of unit length."""
        return F.normalize(self.video_project_head(self.video_encoder(frames)), dim=-1)

    def encode_sound(self, mel: Tensor) -> Tensor:
        """Log-mel (B, NUM_MELS, N) in [0, 1] -> (B, N // MELS_PER_STEP, embed_dim), of unit length."""
        return F.normalize(self.spec_encoder(mel), dim=-1)


class SlowOnly(nn.Module):
    """A residual network of 50 layers over frames; its last two stages also look one frame back and ahead."""

    def __init__(self, config: CavpConfig) -> None:
        super().__init__()
        width, blocks = config.video_width, config.video_blocks
        self.conv1 = _ConvNorm(3, width, (1, 7, 7), stride=2)
        self.layer1 = _stage(width, width, blocks[0], stride=1, reach=0)
        self.layer2 = _stage(4 * width, 2 * width, blocks[1], stride=2, reach=0)
        self.layer3 = _stage(8 * width, 4 * width, blocks[2], stride=2, reach=1)
        self.layer4 = _stage(16 * width, 8 * width, blocks[3], stride=2, reach=1)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, T, C), averaged over the picture."""
        features = F.relu(self.conv1(frames))
        features = F.max_pool3d(features, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
        return features.mean(dim=(-2, -1)).transpose(1, 2)


def _stage(channels: int, width: int, num_blocks: int, stride: int, reach: int) -> nn.Sequential:
    """Bottlenecks; the first changes the number of channels, and the picture's size by `stride`."""
    rest = [_Bottleneck(4 * width, width, stride=1, reach=reach) for _ in range(num_blocks - 1)]
    return nn.Sequential(_Bottleneck(channels, width, stride, reach), *rest)


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, reach: int) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(channels, width, (1 + 2 * reach, 1, 1))
        self.conv2 = _ConvNorm(width, width, (1, 3, 3), stride)
        self.conv3 = _ConvNorm(width, 4 * width, (1, 1, 1))
        changes = stride != 1 or channels != 4 * width
        self.downsample = _ConvNorm(channels, 4 * width, (1, 1, 1), stride) if changes else None

    def forward(self, features: Tensor) -> Tensor:
        shortcut = features if self.downsample is None else self.downsample(features)
        features = F.relu(self.conv1(features))
        features = F.relu(self.conv2(features))
        return F.relu(self.conv3(features) + shortcut)


class _ConvNorm(nn.Module):
    """A convolution that keeps the number of frames, and a batch normalisation."""

    def __init__(self, channels: int, width: int, kernel: tuple[int, int, int], stride: int = 1) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(channels, width, kernel, stride=(1, stride, stride), padding=padding, bias=False)
        self.bn = nn.BatchNorm3d(width)

    def forward(self, features: Tensor) -> Tensor:
        return self.bn(self.conv(features))


class Cnn14(nn.Module):
    """PANNs' CNN14 with a finer output in time."""

    POOLING = ((2, 2), (2, 2), (2, 2), (2, 2), (1, 2), (1, 1))  # (time, frequency) after each block

    def __init__(self, config: CavpConfig) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(NUM_MELS)
        widths = [1, *(config.audio_width * 2**number for number in range(len(self.POOLING)))]
        for number, (channels, width) in enumerate(pairwise(widths), start=1):
            self.add_module(f"conv_block{number}", _ConvBlock(channels, width))
        self.fc1 = nn.Linear(widths[-1], widths[-1])
        self.final_project = nn.Linear(widths[-1], config.embed_dim)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, NUM_MELS, N) -> (B, N // MELS_PER_STEP, embed_dim)."""
        features = self.bn(mel[..., None]).permute(0, 3, 2, 1)  # (B, 1, N, NUM_MELS)
        for number, pooling in enumerate(self.POOLING, start=1):
            features = F.avg_pool2d(self.get_submodule(f"conv_block{number}")(features), pooling)
        steps = features.mean(dim=-1)  # (B, C, N // 16)
        steps = F.max_pool1d(steps, 3, stride=1, padding=1) + F.avg_pool1d(steps, 3, stride=1, padding=1)
        hidden = F.relu(self.fc1(steps.transpose(1, 2)))
        return self.final_project(F.relu(self.fc1(hidden)))  # the same layer twice, as published


class _ConvBlock(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        features = F.relu(self.bn1(self.conv1(features)))
        return F.relu(self.bn2(self.conv2(features)))
