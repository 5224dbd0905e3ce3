"""The part of a clip that a training sample shows: windows of frames and of sound, and the crop of the picture.

Starts are drawn as published, whose last possible start is never used. docs/upstream/data.md, sections 4 to 6.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from media.mel import SAMPLE_RATE

AUDIO_FPS = 24.0  # a bucket's frames per second where sound is trained alone
FRAMES_AT_ONCE = 4  # resized together: a long clip of large frames as floats would take gigabytes


class Window(NamedTuple):
    """Frames, or samples of sound, `start` <= n < `end` of a clip."""

    start: int
    end: int


def draw_window(total_frames: int, num_frames: int, rng: np.random.Generator) -> Window:
    """A random window of `num_frames` frames.

    Raises:
        ValueError: when the clip is shorter than the window.
    """
    return _draw(total_frames, num_frames, rng, "frames")


def audio_window(window: Window, total_frames: int, num_samples: int) -> Window:
    """The sound of a window of frames, in a clip of so many frames and samples (`num_clip_samples`)."""
    per_frame = num_samples / total_frames
    end, count = round(window.end * per_frame), round((window.end - window.start) * per_frame)
    return Window(end - count, end)


def draw_audio_window(
    num_samples: int,
    num_frames: int,
    rng: np.random.Generator,
    fps: float = AUDIO_FPS,
    sample_rate: int = SAMPLE_RATE,
) -> Window:
    """A random window of sound without a picture, as long as `num_frames` frames at `fps` would be.

    Raises:
        ValueError: when the sound is shorter than the window.
    """
    return _draw(num_samples, num_window_samples(num_frames, fps, sample_rate), rng, "samples")


def num_window_samples(num_frames: int, fps: float = AUDIO_FPS, sample_rate: int = SAMPLE_RATE) -> int:
    """Samples of a window of sound without a picture."""
    return int(num_frames / fps * sample_rate)


def num_clip_samples(total_frames: int, fps: float, sample_rate: int = SAMPLE_RATE) -> int:
    """Samples that a clip's sound is cut or filled up to, before `audio_window`."""
    return math.ceil(total_frames / fps * sample_rate)


def resize_crop(frames: np.ndarray | Tensor, height: int, width: int) -> Tensor:
    """uint8 (T, H, W, 3) -> float32 (T, height, width, 3) in [-1, 1]: resized to fill, and the middle cut out.

    Bilinear without anti-aliasing, as published.
    """
    pixels = torch.as_tensor(frames).permute(0, 3, 1, 2)
    size = _filling_size(pixels.shape[2], pixels.shape[3], height, width)
    top, left = (excess // 2 for excess in (size[0] - height, size[1] - width))
    cropped = torch.empty(len(pixels), height, width, pixels.shape[1], dtype=torch.float32)
    for start in range(0, len(pixels), FRAMES_AT_ONCE):
        part = pixels[start : start + FRAMES_AT_ONCE].float() / 127.5 - 1
        resized = F.interpolate(part, size, mode="bilinear", align_corners=False, antialias=False)
        shown = resized[:, :, top : top + height, left : left + width]
        cropped[start : start + FRAMES_AT_ONCE] = shown.permute(0, 2, 3, 1)
    return cropped


def _filling_size(height: int, width: int, target_height: int, target_width: int) -> tuple[int, int]:
    """The smallest (height, width) of the picture's shape that covers the target."""
    by_height, by_width = target_height / height, target_width / width
    if by_height > by_width:
        return target_height, round(width * by_height)
    return round(height * by_width), target_width


def _draw(total: int, length: int, rng: np.random.Generator, unit: str) -> Window:
    if total < length:
        raise ValueError(
            f"The clip has {total} {unit}, but its window takes {length}: use a longer clip, or a shorter bucket."
        )
    start = int(rng.integers(max(total - length - 1, 0), endpoint=True))
    return Window(start, start + length)
