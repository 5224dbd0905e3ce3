"""Conversion of a clip to another frame rate, picture size, length, sampling rate or number of channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
from PIL import Image

from media.audio import fit_length, mix_channels, resample_audio
from media.clip import AVClip, MediaError

TIMESTAMP_TOLERANCE_S = 1e-3  # containers such as Matroska round timestamps to milliseconds

Item = TypeVar("Item")


def convert_clip(
    clip: AVClip,
    *,
    fps: float | None = None,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    sample_rate: int | None = None,
    num_channels: int | None = None,
) -> AVClip:
    """Return the clip with the given frame rate, size, length and sound format; None keeps a property unchanged.

    Frame rate: each new frame is the latest old frame at its time. Size: frames are resized to fill the target and
    cropped centrally; if only one of height and width is given, the other follows the aspect ratio. `num_frames` cuts
    the video; the sound is then cut or padded with zeros to round(num_frames / fps * sample_rate) samples. If exactly
    one frame is missing, the last one is repeated; a shorter clip raises MediaError. A clip without sound stays
    without sound. Raises ValueError for a value that is not positive.
    """
    check_positive(
        fps=fps, height=height, width=width, num_frames=num_frames, sample_rate=sample_rate, num_channels=num_channels
    )
    new_fps = float(fps or clip.fps)
    times = ((index / clip.fps, index) for index in range(clip.num_frames))
    indices = list(at_rate(times, new_fps, clip.duration_s))
    video = clip.video if indices == list(range(clip.num_frames)) else clip.video[indices]
    if num_frames is not None:
        video = fit_num_frames(video, num_frames, new_fps)
    if (height, width) != (None, None):
        video = np.stack([resize_frame(frame, height, width) for frame in video])
    audio, rate = convert_audio(clip.audio, clip.sample_rate, sample_rate, num_channels)
    if num_frames is not None and clip.has_audio:
        audio = fit_length(audio, round(num_frames / new_fps * rate))
    return AVClip(video, new_fps, audio, rate)


def check_positive(**wanted: float | None) -> None:
    """Raise ValueError for a requested size, rate or length that is not positive; None is allowed."""
    for name, value in wanted.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}, but must be positive; leave it out to keep the clip's own value.")


def at_rate(
    items: Iterable[tuple[float, Item]], fps: float, duration_s: float, tolerance_s: float = TIMESTAMP_TOLERANCE_S
) -> Iterator[Item]:
    """Yield round(duration_s * fps) items at a constant rate; times are in seconds, ascending from 0.

    Item n of the output is the latest input item with time <= n / fps + tolerance_s.
    """
    count = max(1, round(duration_s * fps))
    index = 0
    held: list[Item] = []
    for time, item in items:
        while held and index < count and index / fps + tolerance_s < time:
            yield held[0]
            index += 1
        if index >= count:
            return
        held = [item]
    while held and index < count:
        yield held[0]
        index += 1


def fit_num_frames(video: np.ndarray, num_frames: int, fps: float) -> np.ndarray:
    """Cut video (T, H, W, 3) to `num_frames`; if exactly one frame is missing, repeat the last one.

    Raises MediaError if more than one frame is missing.
    """
    have = len(video)
    if have < num_frames - 1:
        raise MediaError(
            None,
            f"has {have} frames at {fps:g} fps ({have / fps:.2f} s), but {num_frames} ({num_frames / fps:.2f} s) are "
            "needed: use a longer clip, a higher fps or fewer num_frames",
        )
    if have == num_frames - 1:
        return np.concatenate([video, video[-1:]])
    return video[:num_frames]


def resize_frame(frame: np.ndarray, height: int | None, width: int | None) -> np.ndarray:
    """Resize a frame, uint8 (H, W, 3), to fill height x width and crop it centrally.

    Interpolation is bilinear, with anti-aliasing when the frame shrinks. If only one of height and width is given,
    the other follows the aspect ratio; if both are None, the frame is returned unchanged.
    """
    old_height, old_width = frame.shape[:2]
    if height is None:
        height = old_height if width is None else max(1, round(old_height * width / old_width))
    if width is None:
        width = max(1, round(old_width * height / old_height))
    if (height, width) == (old_height, old_width):
        return frame
    scale = max(height / old_height, width / old_width)
    left, top = (old_width - width / scale) / 2, (old_height - height / scale) / 2
    box = (max(left, 0.0), max(top, 0.0), min(old_width - left, old_width), min(old_height - top, old_height))
    resized = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)


def convert_audio(
    audio: np.ndarray, sample_rate: int, new_sample_rate: int | None, num_channels: int | None
) -> tuple[np.ndarray, int]:
    """Mix and resample audio (channels, samples), and return it with its rate in Hz; rate 0 (no sound) is unchanged."""
    if sample_rate == 0:
        return audio, 0
    if num_channels is not None:
        audio = mix_channels(audio, num_channels)
    rate = new_sample_rate or sample_rate
    return resample_audio(audio, sample_rate, rate), rate
