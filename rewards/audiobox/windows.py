"""The sound of a clip as AudioBox takes it: mono at 16 kHz, in windows of 10 s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.functional import resample
from torchaudio.transforms import Resample

from rewards.base import JAVISBENCH_LENGTH_S

SAMPLE_RATE = 16_000
WINDOW_S = 10.0  # also the hop
WINDOW_SAMPLES = round(WINDOW_S * SAMPLE_RATE)
MIN_FILL = 0.75  # of a batch's longest window, so that little is spent on padding


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of several sounds in one table. N windows."""

    samples: Tensor  # float32 (N, WINDOW_SAMPLES), zeros after the sound
    num_valid: Tensor  # int64 (N,), samples of sound in each, at least one
    owner: Tensor  # int64 (N,), index of the sound that a window is of


def to_mono(audio: np.ndarray, sample_rate: int) -> Tensor:
    """Audio (channels, samples) in [-1, 1] as float32 (S,) at 16 kHz: resampled as upstream does, then averaged."""
    return resample(torch.tensor(audio), sample_rate, SAMPLE_RATE).mean(dim=0)


def to_javisbench_mono(audio: np.ndarray, sample_rate: int) -> Tensor:
    """Return audio (channels, samples) as JavisBench reads it: float32 (S,), cut or zero-padded to 4 s.

    It resamples along the wrong axis, that of the channel (docs/upstream/audiobox.md, section 8). So sound of another
    rate keeps
    its samples, which then count as 16 kHz, and each becomes what the resampler makes of a sound of one sample: for
    rates above 16 kHz that sample times 0.99 * 16000 / rate. Below, it makes several, which the predictor takes for
    channels and averages. The padding counts as sound.
    """
    gain = Resample(sample_rate, SAMPLE_RATE)(torch.ones(1, 1)).mean()
    sound = torch.tensor(audio).mean(dim=0) * gain
    length = round(JAVISBENCH_LENGTH_S * SAMPLE_RATE)
    return F.pad(sound[:length], (0, max(0, length - len(sound))))


def cut_windows(sounds: Sequence[Tensor]) -> Windows:
    """Cut sounds (S,) of at least one sample into windows; the last of each is padded, however little it holds."""
    pieces = [(index, piece) for index, sound in enumerate(sounds) for piece in sound.split(WINDOW_SAMPLES)]
    return Windows(
        samples=torch.stack([F.pad(piece, (0, WINDOW_SAMPLES - len(piece))) for _, piece in pieces]),
        num_valid=torch.tensor([len(piece) for _, piece in pieces]),
        owner=torch.tensor([index for index, _ in pieces]),
    )


def group_by_length(num_valid: Tensor, size: int) -> list[Tensor]:
    """Indices of all windows in batches of at most `size`, the longest first; a batch costs as much as its longest."""
    batches: list[list[int]] = []
    longest = 0
    for index in num_valid.argsort(descending=True, stable=True).tolist():
        length = int(num_valid[index])
        if not batches or len(batches[-1]) == size or length < MIN_FILL * longest:
            batches.append([])
            longest = length
        batches[-1].append(index)
    return [torch.tensor(batch) for batch in batches]
