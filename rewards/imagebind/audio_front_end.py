"""Mel clips of a waveform, the input of ImageBind's audio tower (docs/upstream/imagebind.md, section 6)."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.base import Protocol
from rewards.imagebind.views import Views

SAMPLE_RATE = 16_000  # Hz
CLIP_S, NUM_CLIPS = 2, 3
FRAME, HOP, FFT_SIZE = 400, 160, 512  # samples: 25 ms, 10 ms, and the next power of two
PRE_EMPHASIS = 0.97
LOW_HZ, HIGH_HZ = 20.0, SAMPLE_RATE / 2
LOG_FLOOR = torch.finfo(torch.float32).eps
MEAN, DEVIATION = -4.268, 9.138  # of the log mel values that ImageBind was trained on


def audio_views(wave: Tensor, mel_bins: int, mel_frames: int, protocol: Protocol) -> Views:
    """Three clips of 2 s, evenly spaced over the sound; in a shorter sound, three times the whole of it.

    Under "javisbench" the mean of each clip is taken off `wave` in place, as in the release: where clips overlap, a
    later one hears the sound without the earlier one's mean.

    Args:
        wave: float32 (channels, N) at 16 kHz; the filter banks hear channel 0.

    Returns:
        `inputs` float32 (S, 1, mel_bins, mel_frames), S = 3, or fewer where clips are the same ("correct" only).

    Raises:
        ValueError: the sound is shorter than one frame of 25 ms.
    """
    if wave.shape[1] < FRAME:
        raise ValueError(
            f"The sound has {wave.shape[1]} samples at 16 kHz, and ImageBind hears frames of {FRAME}: "
            "score sounds of 25 ms or more."
        )
    ranges = clip_ranges(wave.shape[1])
    if protocol == "javisbench":
        counts = [1] * NUM_CLIPS
        clips = [clip.sub_(clip.mean())[0].clone() for clip in (wave[:, start:stop] for start, stop in ranges)]
    else:
        counted = Counter(ranges)
        counts = list(counted.values())
        clips = [wave[0, start:stop] - wave[:, start:stop].mean() for start, stop in counted]
    return Views.counted(mel_clips(torch.stack(clips), mel_bins, mel_frames), counts)


def clip_ranges(num_samples: int) -> list[tuple[int, int]]:
    """First sample and end of the three clips; the end may lie behind that of the sound.

    The latest start is a float, and everything after it is exact: 5.1 s gives 24799 for the second clip, not 24800.
    """
    latest = Fraction(max(num_samples / SAMPLE_RATE - CLIP_S, 0))
    starts = [latest * index / (NUM_CLIPS - 1) for index in range(NUM_CLIPS)]
    return [(int(start * SAMPLE_RATE), int((start + CLIP_S) * SAMPLE_RATE)) for start in starts]


def mel_clips(waves: Tensor, mel_bins: int, mel_frames: int) -> Tensor:
    """float32 (S, n) -> (S, 1, mel_bins, mel_frames), cut or padded at the end, then normalised, padding included."""
    bands = log_mel(waves, mel_bins).transpose(1, 2)[..., :mel_frames]
    return ((F.pad(bands, (0, mel_frames - bands.shape[-1])) - MEAN) / DEVIATION).unsqueeze(1)


def log_mel(waves: Tensor, mel_bins: int) -> Tensor:
    """Kaldi's log filter bank energies of each 25 ms, float32 (S, n) -> (S, 1 + (n - 400) // 160, mel_bins)."""
    frames = waves.unfold(1, FRAME, HOP)  # (S, frames, 400)
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    window = torch.hann_window(FRAME, periodic=False, device=waves.device)
    spectrum = torch.fft.rfft((frames - PRE_EMPHASIS * before) * window, n=FFT_SIZE)
    power = spectrum.real.square() + spectrum.imag.square()  # (S, frames, 257)
    return (power @ _filter_bank(mel_bins).to(waves.device)).clamp(min=LOG_FLOOR).log()


@lru_cache(maxsize=4)
def _filter_bank(mel_bins: int) -> Tensor:
    """Triangles of height 1 that are straight on the mel scale, float32 (257, mel_bins); the last bin is unused."""
    low, high = _mel(torch.tensor([LOW_HZ, HIGH_HZ], dtype=torch.float64)).tolist()
    edges = torch.linspace(low, high, mel_bins + 2, dtype=torch.float64)
    bins = _mel(torch.arange(FFT_SIZE // 2, dtype=torch.float64) * SAMPLE_RATE / FFT_SIZE).unsqueeze(1)  # (256, 1)
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return F.pad(torch.minimum(rise, fall).clamp(min=0), (0, 0, 0, 1)).float()


def _mel(hertz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hertz / 700)
