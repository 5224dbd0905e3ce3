"""The pictures of a clip as I3D takes them: 24 of them, square, in [-1, 1].

Source: docs/upstream/metrics.md, section 3.
The release maps [0, 1] to bytes as if it were [-1, 1]: black arrives at the network as
grey. Under "javisbench" that is reproduced; by default [0, 1] becomes [-1, 1], and nothing is rounded to bytes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.judges.i3d.config import NUM_FRAMES
from media.clip import AVClip
from rewards.base import Protocol


def frame_indices(num_frames: int, count: int = NUM_FRAMES) -> np.ndarray:
    """Evenly spaced frames from the first to the last, int64 (count,); halves to even, repeated where there are few."""
    return np.linspace(0, num_frames - 1, count).round().astype(np.int64)


def prepare_frames(clip: AVClip, size: int, protocol: Protocol) -> Tensor:
    """Return the input of the network from a clip, float32 (3, NUM_FRAMES, size, size) in [-1, 1]."""
    squares = fit_square(torch.from_numpy(clip.video[frame_indices(clip.num_frames)]), size)
    if protocol == "javisbench":
        return normalise_bytes(released_bytes(squares), size)
    return squares.mul(2).sub(1).transpose(0, 1)


def fit_square(frames: Tensor, size: int) -> Tensor:
    """uint8 (T, H, W, 3) -> float32 (T, 3, size, size) in [0, 1]: resized to fit, with black around, nothing cut off.

    Bilinear, anti-aliased; the shorter side is truncated to an integer. An odd line of black is right or below.
    """
    height, width = frames.shape[1:3]
    longer = max(height, width)
    new_height, new_width = (max(1, side * size // longer) for side in (height, width))
    planes = frames.permute(0, 3, 1, 2).float() / 255
    if (new_height, new_width) != (height, width):
        planes = F.interpolate(planes, (new_height, new_width), mode="bilinear", antialias=True, align_corners=False)
    rows, columns = size - new_height, size - new_width
    return F.pad(planes, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def released_bytes(squares: Tensor) -> Tensor:
    """The release's bytes of pictures in [0, 1]: black becomes 127, white 255."""
    return ((squares + 1) * 127.5).clamp(0, 255).to(torch.uint8)  # truncated


def normalise_bytes(frames: Tensor, size: int) -> Tensor:
    """The release's network input, float32 (3, T, size, size) in [-1, 1], of bytes (T, 3, H, W).

    The shorter side is brought to `size` (bilinear, not anti-aliased, the other side rounded up), then the centre is
    cut out; what `fit_square` made is left as it is.
    """
    height, width = frames.shape[-2:]
    scale = size / min(height, width)
    new_size = (size, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), size)
    planes = F.interpolate(frames.float() / 255, new_size, mode="bilinear", align_corners=False)
    top, left = (new_size[0] - size) // 2, (new_size[1] - size) // 2
    cropped = planes[..., top : top + size, left : left + size]
    return cropped.sub(0.5).mul(2).transpose(0, 1)
