"""The part of a clip that a training sample shows: windows of frames and of sound, and the crop of the picture.

Starts are drawn as published, whose last possible start is never used.  facts_data sections 4 to 6.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from media.mel import SAMPLE_RATE

AUDIO_FPS = 24.0  # a bucket's frames per second where sound is trained alone
FRAMES_AT_ONCE = 4  # resized together: a long clip of large frames as floats would take gigabytes


@dataclass(frozen=True)
class Window:
    """Frames `start_frame` <= n < `end_frame` of a clip, of which `num_frames` are shown."""

    start_frame: int
    end_frame: int
    num_frames: int
    frame_interval: int = 1

    @property
    def frame_indices(self) -> np.ndarray:
        """int64 (num_frames,), spread from the window's first frame to its last."""
        return _spread(self.start_frame, self.end_frame, self.num_frames)


@dataclass(frozen=True)
class AudioWindow:
    """Samples `audio_start` <= n < `audio_end` of a clip's sound, of which `audio_count` are heard."""

    audio_start: int
    audio_end: int
    audio_count: int

    @property
    def sample_indices(self) -> np.ndarray:
        """int64 (audio_count,): every sample of the window, unless it goes with every n-th frame."""
        return _spread(self.audio_start, self.audio_end, self.audio_count)


def draw_window(total_frames: int, num_frames: int, rng: np.random.Generator, frame_interval: int = 1) -> Window:
    """A random window of `num_frames` frames, `frame_interval` apart.

    Raises:
        ValueError: when the clip is shorter than the window.
    """
    length = num_frames * frame_interval
    _check_length(total_frames, length, "frames")
    start = _draw_start(total_frames, length, rng)
    return Window(start, start + length, num_frames, frame_interval)


def audio_window(window: Window, total_frames: int, num_samples: int) -> AudioWindow:
    """The sound of a window of frames, in a clip of so many frames and samples.

    The published rule; the release lets a negative start, which rounding can make, wrap around to the clip's end: here
    it is 0.
    """
    per_frame = num_samples / total_frames
    end, count = round(window.end_frame * per_frame), round(window.num_frames * per_frame)
    return AudioWindow(max(end - count * window.frame_interval, 0), end, count)


def draw_audio_window(
    num_samples: int,
    num_frames: int,
    rng: np.random.Generator,
    fps: float = AUDIO_FPS,
    sample_rate: int = SAMPLE_RATE,
) -> AudioWindow:
    """A random window of sound without a picture, as long as `num_frames` frames at `fps` would be.

    Raises:
        ValueError: when the sound is shorter than the window.
    """
    length = int(num_frames / fps * sample_rate)
    _check_length(num_samples, length, "samples")
    start = _draw_start(num_samples, length, rng)
    return AudioWindow(start, start + length, length)


def num_clip_samples(total_frames: int, fps: float) -> int:
    """Samples that a clip's sound is cut or filled up to, before `audio_window`."""
    return math.ceil(total_frames / fps * SAMPLE_RATE)


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


def _draw_start(total: int, length: int, rng: np.random.Generator) -> int:
    return int(rng.integers(max(total - length - 1, 0), endpoint=True))


def _check_length(total: int, length: int, unit: str) -> None:
    if total < length:
        raise ValueError(
            f"The clip has {total} {unit}, but its window takes {length}: use a longer clip, or a shorter bucket."
        )


def _spread(start: int, end: int, count: int) -> np.ndarray:
    return np.linspace(start, end - 1, count).astype(np.int64)  # truncated, as published
