"""Selection of a training sample's part of a clip: windows of frames and of sound, and the crop of the picture.

Starts are drawn by the published rule, which never uses the last possible start.
Source: docs/upstream/data.md, sections 4 to 6.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from media.mel import SAMPLE_RATE

AUDIO_FPS = 24.0  # frames per second of a bucket when sound is trained alone
FRAMES_AT_ONCE = 4  # resized together: all frames of a long clip as floats would take gigabytes


class Window(NamedTuple):
    """A range `start` <= n < `end` of a clip's frames or samples of sound."""

    start: int
    end: int


def draw_window(total_frames: int, num_frames: int, rng: np.random.Generator) -> Window:
    """Draw a window of `num_frames` frames.

    Raises:
        ValueError: the clip is shorter than the window.
    """
    return _draw(total_frames, num_frames, rng, "frames")


def audio_window(window: Window, total_frames: int, num_samples: int) -> Window:
    """Return the window of sound for a window of frames, in a clip of so many frames and samples.

    The number of samples is that of `num_clip_samples`.
    """
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
    """Draw a window of sound without a picture, as long as `num_frames` frames at `fps`.

    Raises:
        ValueError: the sound is shorter than the window.
    """
    return _draw(num_samples, num_window_samples(num_frames, fps, sample_rate), rng, "samples")


def num_window_samples(num_frames: int, fps: float = AUDIO_FPS, sample_rate: int = SAMPLE_RATE) -> int:
    """Return the number of samples in a window of sound without a picture."""
    return int(num_frames / fps * sample_rate)


def num_clip_samples(total_frames: int, fps: float, sample_rate: int = SAMPLE_RATE) -> int:
    """Return the number of samples to which a clip's sound is cut or padded before `audio_window`."""
    return math.ceil(total_frames / fps * sample_rate)


def resize_crop(frames: np.ndarray | Tensor, height: int, width: int) -> Tensor:
    """Resize frames to cover the target size and crop the centre.

    Interpolation is bilinear without anti-aliasing, as published.

    Args:
        frames: uint8 (T, H, W, 3).
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        float32 (T, height, width, 3) in [-1, 1].
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
    """Return the smallest (height, width) with the picture's aspect ratio that covers the target."""
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
