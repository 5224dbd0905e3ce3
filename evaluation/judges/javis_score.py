"""AVHScore and JavisScore, the agreement of sound and picture over all frames and window by window.

Source: docs/upstream/imagebind.md, section 9. Higher is better; the prompt plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.imagebind.audio_front_end import SAMPLE_RATE
from rewards.imagebind.reward import COSINE_EPS

TIME_EPS_S = 1e-6  # tolerance for rounding of times, far less than a sample

if TYPE_CHECKING:
    from media.clip import AVClip
    from rewards.base import Protocol
    from rewards.imagebind.encoder import ImageBindEncoder


@dataclass(frozen=True, kw_only=True)
class JavisScoreConfig:
    """Windows of a clip, and the frames of a window that count; defaults as in the benchmark's command."""

    window_s: float = 2.0
    overlap_s: float = 1.5
    lowest: float = 0.4  # frames of the lowest cosines: below 1 their share of the window, from 1 on their number

    def __post_init__(self) -> None:
        if not 0 <= self.overlap_s < self.window_s:
            raise ValueError(
                f"overlap_s is {self.overlap_s} and window_s {self.window_s}: give 0 <= overlap_s < window_s."
            )
        if not self.lowest > 0:
            raise ValueError(
                f"lowest is {self.lowest}: give a share of the frames between 0 and 1, or a number of them."
            )


class Window(NamedTuple):
    """First index and end of a window."""

    frames: tuple[int, int]
    samples: tuple[int, int]  # at 16 kHz


class SyncScores(NamedTuple):
    avh_score: float
    javis_score: float


def sync_scores(encoder: ImageBindEncoder, clip: AVClip, config: JavisScoreConfig | None = None) -> SyncScores:
    """Both scores of one clip, under the encoder's protocol; NaN for a clip without an audio track.

    Raises:
        ValueError: the sound, or a window of it, is shorter than 25 ms, or windows are too short for the frame rate.
    """
    if not clip.has_audio:
        return SyncScores(float("nan"), float("nan"))
    config = config or JavisScoreConfig()
    num_samples = encoder.waveform(clip).shape[1]
    windows = sync_windows(clip.num_frames, clip.fps, num_samples, config, encoder.protocol)
    frames = encoder.frames(clip)
    heard = encoder.sound_windows(clip, [window.samples for window in windows])
    javis = javis_score(frames, heard, windows, config.lowest, encoder.protocol)
    return SyncScores(avh_score(frames, encoder.sounds([clip])).item(), javis.item())


def avh_score(frames: Tensor, sound: Tensor) -> Tensor:
    """Mean cosine of the frames' embeddings (T, E) and that of the whole sound (1, E)."""
    return F.cosine_similarity(frames, sound, eps=COSINE_EPS).mean()


def javis_score(
    frames: Tensor, heard: Tensor, windows: list[Window], lowest: float, protocol: Protocol = "correct"
) -> Tensor:
    """Mean over windows of the mean of the lowest cosines between a window's frames and its sound.

    Under "javisbench" a share that comes to less than one frame gives NaN; otherwise it is one frame.

    Args:
        frames: (T, E) embeddings of all frames.
        heard: (M, E) embedding of each window's sound.
        windows: the M windows of `sync_windows`.
        lowest: see `JavisScoreConfig`.
    """
    scores = []
    for window, sound in zip(windows, heard, strict=True):
        cosines = F.cosine_similarity(frames[slice(*window.frames)], sound[None], eps=COSINE_EPS)
        count = int(lowest if lowest >= 1 else len(cosines) * lowest)
        if protocol == "correct":
            count = max(count, 1)
        scores.append(cosines.sort().values[:count].mean())
    return torch.stack(scores).mean()


def sync_windows(
    num_frames: int, fps: float, num_samples: int, config: JavisScoreConfig, protocol: Protocol = "correct"
) -> list[Window]:
    """Windows over picture and sound; one of everything where either is no longer than a window.

    By default a window begins at the same time in both. Under "javisbench" each stream has its own steps, rounded to
    whole frames and samples, which drift apart where a step is no whole number of frames.

    Args:
        num_frames: of the picture; num_samples: of the sound at 16 kHz.
    """
    if protocol == "javisbench":
        return _drifting_windows(num_frames, fps, num_samples, config)
    end_s = min(num_frames / fps, num_samples / SAMPLE_RATE)
    if end_s <= config.window_s:
        return [Window((0, num_frames), (0, num_samples))]
    starts, step_s = [0.0], config.window_s - config.overlap_s
    last = end_s - config.window_s
    while starts[-1] < last - TIME_EPS_S:
        starts.append(min(len(starts) * step_s, last))
    return [
        Window(_span(start, config.window_s, fps, num_frames), _span(start, config.window_s, SAMPLE_RATE, num_samples))
        for start in starts
    ]


def _span(start_s: float, length_s: float, rate: float, limit: int) -> tuple[int, int]:
    """Return the span of a stream that begins nearest to this time; spans of a stream have the same length."""
    size = max(round(length_s * rate), 1)
    start = min(round(start_s * rate), limit - size)
    return start, start + size


def _drifting_windows(num_frames: int, fps: float, num_samples: int, config: JavisScoreConfig) -> list[Window]:
    streams = ((num_frames, fps), (num_samples, SAMPLE_RATE))
    sizes = [(length, int(config.window_s * rate), int(config.overlap_s * rate)) for length, rate in streams]
    if any(length <= size for length, size, _ in sizes):
        return [Window((0, num_frames), (0, num_samples))]
    if min(size - overlap for _, size, overlap in sizes) < 1:
        raise ValueError(
            f"Windows of {config.window_s} s with an overlap of {config.overlap_s} s advance by no whole frame at "
            f"{fps} fps: make the window longer, or the overlap shorter."
        )
    frames, samples = (_stream_windows(*stream) for stream in sizes)
    return [Window(*pair) for pair in zip(frames, samples, strict=False)]


def _stream_windows(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    starts = [0]
    while starts[-1] + size < length:
        starts.append(min(len(starts) * (size - overlap), length - size))
    return [(start, start + size) for start in starts]
