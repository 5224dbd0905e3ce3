"""Rows of pixels of a clip's frames, the input of the vision tower. All in float32.

Source: docs/upstream/videoalign.md, section 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from media.clip import AVClip
from rewards.clip_colours import normalise
from rewards.videoalign.config import VideoAlignConfig, VisionConfig

MIN_FRAMES = 4  # sampled by rate, where the clip has as many
MAX_FRAMES = 768
MAX_ASPECT = 200
FRAMES_AT_ONCE = 16  # resized together, so that a long clip in HD does not fill the memory


@dataclass(frozen=True)
class FramePlan:
    """The frames of a clip that are read, and their size."""

    indices: tuple[int, ...]
    height: int  # pixels, resized
    width: int
    grid: tuple[int, int, int]  # patches: frame pairs, rows, columns
    num_tokens: int  # that the clip takes in the chat


def plan_frames(clip: AVClip, config: VideoAlignConfig) -> FramePlan:
    """Return the frames to read and their size. Raises ValueError for one frame, or too elongated ones."""
    vision = config.vision_config
    indices = sample_frames(clip.num_frames, clip.fps, config.fps, config.num_frames)
    height, width = smart_resize(
        clip.height, clip.width, vision.factor, config.min_frame_pixels, config.max_frame_pixels
    )
    grid = (
        math.ceil(len(indices) / vision.temporal_patch_size),
        height // vision.patch_size,
        width // vision.patch_size,
    )
    return FramePlan(indices, height, width, grid, math.prod(grid) // vision.spatial_merge_size**2)


def video_patches(clip: AVClip, plan: FramePlan, vision: VisionConfig, device: str = "cpu") -> Tensor:
    """Float32 (patches, patch_dim) of a clip; an odd last frame is repeated, as transformers 5 does."""
    indices = [*plan.indices, *plan.indices[-1:] * (-len(plan.indices) % vision.temporal_patch_size)]
    frames = torch.from_numpy(np.ascontiguousarray(clip.video[indices])).to(device)  # (T, H, W, 3)
    resized = [resize(part.permute(0, 3, 1, 2), plan.height, plan.width) for part in frames.split(FRAMES_AT_ONCE)]
    return patch_rows(normalise(torch.cat(resized) / 255), vision)


def sample_frames(total: int, video_fps: float, fps: float, num_frames: float | None = None) -> tuple[int, ...]:
    """Indices of evenly spaced frames, the first and the last among them.

    Args:
        total: frames in the clip.
        video_fps: of the clip.
        fps: frames wanted per second; between 4 and 768 are taken, fewer from a shorter clip.
        num_frames: wanted in all, in place of a rate.

    Raises:
        ValueError: fewer than two frames come out.
    """
    if num_frames is None:
        most = min(MAX_FRAMES, total) // 2 * 2
        count = 2 * round(min(max(total / video_fps * fps, MIN_FRAMES), most) / 2)
    else:
        count = 2 * round(num_frames / 2)
    count = min(count, total)
    if count < 2:
        raise ValueError(
            f"{count} frame(s) would be sampled from a clip of {total} frame(s), but motion needs two. "
            "Give a longer clip, or a larger num_frames."
        )
    return tuple(torch.linspace(0, total - 1, count).round().long().tolist())  # half to even


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size with about the same aspect, in multiples of `factor`, and an area within the bounds where it can be.

    A size over `max_pixels` is only shrunk and a size under `min_pixels` only enlarged, so that bounds closer together
    than rounding, or crossed as upstream's default is, leave one of them unmet.

    Raises:
        ValueError: the sides differ by more than 200 times, or the shorter side would vanish.
    """
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"A picture of {height} x {width} pixels is too elongated: one side may be {MAX_ASPECT} times the other at "
            "most. Crop it."
        )
    new_height, new_width = (max(factor, round(side / factor) * factor) for side in (height, width))
    area = height * width
    if new_height * new_width > max_pixels:
        scale = math.sqrt(area / max_pixels)
        new_height, new_width = (math.floor(side / scale / factor) * factor for side in (height, width))
    elif new_height * new_width < min_pixels:
        scale = math.sqrt(min_pixels / area)
        new_height, new_width = (math.ceil(side * scale / factor) * factor for side in (height, width))
    if not (new_height and new_width):
        raise ValueError(
            f"A picture of {height} x {width} pixels, shrunk to {max_pixels} pixels in all, would keep nothing of its "
            "shorter side. Crop it, or raise max_frame_pixels."
        )
    return new_height, new_width


def resize(frames: Tensor, height: int, width: int) -> Tensor:
    """Uint8 (T, 3, H, W) to float32 (T, 3, height, width) of whole numbers in 0..255: bicubic with antialiasing.

    Computed in float32 on purpose: torchvision's fixed-point kernel for uint8 is off by up to 23 levels.
    """
    resized = F.interpolate(frames.float(), size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp_(0, 255).round_()


def patch_rows(frames: Tensor, vision: VisionConfig) -> Tensor:
    """(T, 3, H, W) to (patches, patch_dim), ordered so that the patches merged into one token follow each other."""
    merge, patch, step = vision.spatial_merge_size, vision.patch_size, vision.temporal_patch_size
    total, channels, height, width = frames.shape
    blocks = frames.reshape(
        total // step, step, channels, height // vision.factor, merge, patch, width // vision.factor, merge, patch
    )
    return blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, channels * step * patch**2)
