"""AV-Align, the share of onsets of the sound that fall on a peak of movement in the picture.

Source: docs/upstream/metrics.md, section 5.

Higher is better. What the release's code computes is the definition, under every protocol, and not the symmetric
formula that its documentation gives. So
- the first movement counts for the first two frames, and the ends of the picture are never peaks,
- the sound is analysed at its own rate: onsets are located in steps of 512 samples, whatever their duration,
- several onsets may use the same peak of movement, so a score can exceed 1.
"""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from rewards.base import Judge, Prompt, Protocol
from rewards.registry import MissingPackageError

if TYPE_CHECKING:
    from torch import Tensor

    from media.clip import AVClip

EPS = 1e-6
INSTALL = "pip install librosa opencv-python-headless"
# Farneback's optical flow: scale and levels of the pyramid, window, iterations, polynomial and its sigma, flags
FLOW_SETTINGS = (0.5, 3, 15, 3, 5, 1.2, 0)


class AVAlignJudge(Judge):
    """`av_align` of whole clips, at their own size and rates. NaN without an audio track, 0 for silence."""

    name = "av_align"
    version = "1"
    outputs: ClassVar[dict[str, int | None]] = {"av_align": None}
    needs = frozenset({"video", "audio"})

    @classmethod
    def load(
        cls, path: str | None = None, device: str = "cpu", dtype: str = "float32", protocol: Protocol = "correct"
    ) -> Self:
        """Return the judge, which runs on the CPU whatever `device` is.

        Raises:
            MissingPackageError: librosa or OpenCV is not installed.
        """
        judge = super().load(path, device, dtype, protocol)
        for package in ("librosa", "cv2"):  # now, not at the first clip
            _package(package)
        return judge

    def measure(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """`av_align`, float32 (B,)."""
        import torch

        return {"av_align": torch.tensor([av_align(clip) for clip in clips], dtype=torch.float32)}


def av_align(clip: AVClip) -> float:
    """Return the score of one clip; NaN where it has no audio track."""
    if not clip.has_audio:
        return float("nan")
    heard = audio_peaks(clip.audio.mean(axis=0), clip.sample_rate)
    seen = video_peaks(flow_magnitudes(clip.video), clip.fps)
    return peak_score(heard, seen, clip.fps)


def audio_peaks(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Return the onsets of a mono sound, float64 (A,), in seconds: librosa's, with its defaults.

    Args:
        waveform: float32 (samples,).
        rate: Hz.
    """
    librosa = _package("librosa")
    envelope = librosa.onset.onset_strength(y=waveform, sr=rate)
    onsets = librosa.onset.onset_detect(onset_envelope=envelope, sr=rate)
    return np.asarray(librosa.frames_to_time(onsets, sr=rate), dtype=np.float64)


def flow_magnitudes(frames: np.ndarray) -> np.ndarray:
    """Mean length of the optical flow that leads to each frame, in pixels, float64 (T,).

    The first frame has no predecessor: it gets the value of the second, or 0 where it is alone.

    Args:
        frames: uint8 (T, H, W, 3), RGB.
    """
    cv2 = _package("cv2")
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
    flows = (cv2.calcOpticalFlowFarneback(before, after, None, *FLOW_SETTINGS) for before, after in pairwise(grey))
    magnitudes = [cv2.cartToPolar(flow[..., 0], flow[..., 1])[0].mean(dtype=np.float64) for flow in flows]
    return np.array([*magnitudes[:1], *magnitudes] or [0.0], dtype=np.float64)


def video_peaks(magnitudes: np.ndarray, fps: float) -> np.ndarray:
    """Return the times with more movement than one frame before and one after, float64 (V,), in seconds."""
    middle = magnitudes[1:-1]
    peaks = np.flatnonzero((middle > magnitudes[:-2]) & (middle > magnitudes[2:])) + 1
    return peaks / fps


def peak_score(audio_peaks: np.ndarray, video_peaks: np.ndarray, fps: float) -> float:
    """Return the onsets less than a frame from a peak of movement, divided by the number of all other peaks and these.

    Args:
        audio_peaks: (A,) seconds.
        video_peaks: (V,) seconds.
    """
    heard, seen = np.asarray(audio_peaks)[:, None], np.asarray(video_peaks)[None]
    near = ((seen - 1 / fps < heard) & (heard < seen + 1 / fps)).any(axis=1)
    matched = int(near.sum())
    return matched / (heard.size + seen.size - matched + EPS)


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"AV-Align needs the package {error.name!r}, which is not installed. Install what it uses: {INSTALL}"
        ) from error
