"""The audio-video clip type of the whole toolkit, and the file properties that `probe` returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


class MediaError(ValueError):
    """Error for a media file, or a clip decoded from one, that cannot be used. `path` is None for a clip in memory."""

    def __init__(self, path: str | Path | None, reason: str) -> None:
        super().__init__(None if path is None else str(path), reason)  # both in args: the error can be pickled
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return self.reason if self.path is None else f"{self.path}: {self.reason}"


@dataclass(frozen=True, eq=False)
class AVClip:
    """Video frames at a constant rate, and the sound, which starts at the first frame.

    A clip without sound has `audio` of shape (0, 0) and `sample_rate` 0.
    Raises ValueError when a shape, type or range differs from the comments on the fields.
    """

    video: np.ndarray  # uint8 (T, H, W, 3), RGB
    fps: float  # frames per second
    audio: np.ndarray  # float32 (channels, samples) in [-1, 1]
    sample_rate: int  # Hz

    def __post_init__(self) -> None:
        _check_video(self.video, self.fps)
        _check_audio(self.audio, self.sample_rate)

    @property
    def num_frames(self) -> int:
        return self.video.shape[0]

    @property
    def height(self) -> int:
        return self.video.shape[1]

    @property
    def width(self) -> int:
        return self.video.shape[2]

    @property
    def num_channels(self) -> int:
        return self.audio.shape[0]

    @property
    def num_samples(self) -> int:
        return self.audio.shape[1]

    @property
    def duration_s(self) -> float:
        """Length of the video in seconds; the sound may end slightly earlier or later."""
        return self.num_frames / self.fps

    @property
    def has_audio(self) -> bool:
        return self.sample_rate > 0


@dataclass(frozen=True)
class MediaInfo:
    """Properties of a media file. Video fields are 0 for a file without video, audio fields 0 for one without sound."""

    path: str
    duration_s: float  # of the video, or of the sound if there is no video
    num_frames: int
    fps: float  # average over the file
    height: int  # as displayed, with rotation applied
    width: int
    sample_rate: int  # Hz
    num_channels: int
    audio_duration_s: float

    @property
    def has_video(self) -> bool:
        return self.num_frames > 0

    @property
    def has_audio(self) -> bool:
        return self.sample_rate > 0


def empty_audio() -> np.ndarray:
    """Return the `audio` of a clip without sound: float32 (0, 0)."""
    return np.zeros((0, 0), dtype=np.float32)


def _check_video(video: np.ndarray, fps: float) -> None:
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3:
        raise ValueError(
            f"AVClip.video is {video.dtype} {video.shape}, but must be uint8 (T, H, W, 3) in RGB: convert it first."
        )
    if 0 in video.shape:
        raise ValueError(f"AVClip.video of shape {video.shape} is empty: a clip has at least one frame of one pixel.")
    if not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"AVClip.fps is {fps}, but must be positive: give the number of frames per second.")


def _check_audio(audio: np.ndarray, sample_rate: int) -> None:
    if audio.dtype != np.float32 or audio.ndim != 2:
        raise ValueError(
            f"AVClip.audio is {audio.dtype} {audio.shape}, but must be float32 (channels, samples): convert it first."
        )
    silent = sample_rate == 0
    if silent != (audio.shape == (0, 0)) or sample_rate < 0 or (not silent and 0 in audio.shape):
        raise ValueError(
            f"AVClip.audio of shape {audio.shape} does not match sample_rate {sample_rate}: "
            "give (channels, samples) and a positive rate, or shape (0, 0) and rate 0 for a clip without sound."
        )
    peak = float(np.abs(audio).max(initial=0.0))  # NaN stays NaN and fails the comparison below
    if not peak <= 1.0:
        raise ValueError(f"AVClip.audio reaches {peak}, but must lie in [-1, 1]: scale or clip it first.")
