"""Pictures of a clip as ImageBind's input: clips for the scores (section 7), single frames (section 8).

Sections are those of docs/upstream/imagebind.md. The two ways of resizing differ, as they do in the release.
"""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rewards.clip_colours import normalise
from rewards.imagebind.config import FRAMES_PER_TOKEN, VisionConfig
from rewards.imagebind.views import Views

CLIP_S, NUM_CLIPS = 2, 5


def video_views(video: np.ndarray, fps: float, config: VisionConfig, device: torch.device) -> Views:
    """Return five clips of 2 s with a few frames each (published: two) in three crops; equal views are merged.

    Args:
        video: uint8 (T, H, W, 3).

    Returns:
        `inputs` float32 (S, 3, frames_per_clip, size, size) on the device, S = 15 or less.
    """
    size = config.image_size
    counted = Counter(clip_frames(len(video), fps, config.frames_per_clip))
    indices = torch.tensor(list(counted))  # (P, frames_per_clip)
    used, places = indices.unique(return_inverse=True)
    pictures = resize_frames(torch.from_numpy(video[used.numpy()]).to(device), size)
    crops = three_crops(pictures[places.to(device)], size)
    return Views.counted(crops, [count for count in counted.values() for _ in range(len(crops) // len(counted))])


def clip_frames(num_frames: int, fps: float, frames_per_clip: int = FRAMES_PER_TOKEN) -> list[tuple[int, ...]]:
    """Indices of evenly spaced frames of the five clips, the first and the last among them; below 2 s each clip is the
    whole video."""
    latest = Fraction(max(num_frames / fps - CLIP_S, 0))
    clips = []
    for index in range(NUM_CLIPS):
        start = latest * index / (NUM_CLIPS - 1)  # exact, and only its product with the rate is rounded
        first = math.ceil(fps * float(start))
        last = min(math.ceil(fps * float(start + CLIP_S)), num_frames) - 1
        clips.append(tuple(np.linspace(first, last, frames_per_clip).astype(int).tolist()))
    return clips


def resize_frames(frames: Tensor, size: int) -> Tensor:
    """uint8 (N, H, W, 3) -> normalised float32 (N, 3, h, w), the short side `size`; no antialiasing, as published."""
    height, width = frames.shape[1:3]
    long = math.floor(max(height, width) / min(height, width) * size)
    shape = (long, size) if width < height else (size, long)
    pictures = frames.permute(0, 3, 1, 2).float() / 255
    return normalise(F.interpolate(pictures, shape, mode="bilinear", align_corners=False))


def three_crops(clips: Tensor, size: int) -> Tensor:
    """Start, centre and end of the longer axis, clip by clip; one crop where the picture is a square.

    Args:
        clips: (P, T, 3, h, w), the short side being `size`.

    Returns:
        (3 P, 3, T, size, size), or (P, 3, T, size, size).
    """
    height, width = clips.shape[-2:]
    spare = max(height, width) - size
    axis = -1 if width >= height else -2
    offsets = (0, math.ceil(spare / 2), spare) if spare else (0,)
    crops = torch.stack([clips.narrow(axis, offset, size) for offset in offsets], dim=1)
    return crops.flatten(0, 1).transpose(1, 2)


def frame_pictures(video: np.ndarray, size: int) -> Tensor:
    """Every frame as a picture: uint8 (T, H, W, 3) -> float32 (T, 3, size, size)."""
    pictures = torch.from_numpy(np.stack([resize_frame(frame, size) for frame in video]))
    return normalise(pictures.permute(0, 3, 1, 2).float() / 255)


def resize_frame(frame: np.ndarray, size: int) -> np.ndarray:
    """The centre of a frame, its short side brought to `size` by antialiased bicubic: uint8 (size, size, 3)."""
    height, width = frame.shape[:2]
    long = int(size * max(height, width) / min(height, width))
    shape = (size, long) if width <= height else (long, size)  # (width, height)
    resized = Image.fromarray(frame).resize(shape, Image.Resampling.BICUBIC)
    left, top = (round((length - size) / 2) for length in shape)
    return np.asarray(resized.crop((left, top, left + size, top + size)))
