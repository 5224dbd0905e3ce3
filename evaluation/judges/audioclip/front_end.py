"""Spectrogram of AudioCLIP in decibels: a Fourier transform of short frames with learned waves (arXiv 2104.11587).

Each of the 1025 filters is a complex frequency B-spline wavelet, psi(t) = sqrt(fb) sinc(fb t / m)^m exp(-i fc t) over t
from -pi to pi; with m = 0, fb = 1 and fc = 0, 1, 2 ... it is the discrete Fourier transform that training began with.
All of it is in float32, as in the release: the phases reach 3000 rad, so that its rounding is part of the numbers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy.signal import get_window
from torch import Tensor, nn

N_FFT, HOP, WINDOW = 2048, 561, 1654  # samples, of a sound at 44.1 kHz
NUM_FILTERS = N_FFT // 2 + 1
NUM_BANDS = 3  # of filters, low to high, which take the place of a picture's colours
BAND_HEIGHT = NUM_FILTERS // NUM_BANDS  # the two filters that remain at the top are left out
EPS = 1e-8
POWER_FLOOR = 1e-18  # lower bound of the power


class SplineFilters(nn.Module):
    """The wavelets' order, bandwidth and centre, each float32 (1025,). Names as published."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(NUM_FILTERS))
        self.fb = nn.Parameter(torch.ones(NUM_FILTERS))
        self.fc = nn.Parameter(torch.arange(NUM_FILTERS, dtype=torch.float32))

    def waves(self) -> tuple[Tensor, Tensor]:
        """Real and imaginary part, float32 (1025, 2048) each."""
        order, width, centre = self.m[:, None], self.fb[:, None], self.fc[:, None]
        time = math.pi * torch.linspace(-1.0, 1.0, N_FFT, device=order.device) + EPS
        angle = width * time / (order + EPS)
        lobe = torch.where(angle == 0, 1.0, angle.sin() / angle)
        size = (lobe * lobe) ** (0.5 * order)
        # A power of a negative number is complex where the order is not whole.
        turn = order * torch.where(lobe < 0, math.pi, 0.0)
        real, imaginary = size * turn.cos(), size * turn.sin()
        cosine, sine = (centre * time).cos(), -(centre * time).sin()
        scale = width.sqrt()
        return (
            scale * (real * cosine - imaginary * sine) / N_FFT**0.5,
            scale * (real * sine + imaginary * cosine) / N_FFT**0.5,
        )


def blackman_harris() -> Tensor:
    """float32 (1654,), periodic."""
    return torch.from_numpy(get_window("blackmanharris", WINDOW, fftbins=True)).float()


def to_unit_range(samples: Tensor) -> Tensor:
    """Scale [-32768, 32767] to [-1, 1], the first step of the published network. So 0 becomes 1.5e-5.

    The order of the steps matters for samples that are in [-1, 1] already: near 32768 float32 has steps of 1/256.
    """
    return (samples + 32768.0) * 2.0 / 65535.0 - 1.0


def cut_frames(sound: Tensor, window: Tensor) -> Tensor:
    """Frames of 1654 samples, hop 561, over the whole sound, with zeros on both sides to fill the last one.

    Args:
        sound: float32 (B, samples).

    Returns:
        float32 (B, T, 2048): windowed, with zeros on both sides.
    """
    num_samples = sound.shape[-1]
    num_frames = 1 + max(0, math.ceil((num_samples - WINDOW) / HOP))
    missing = (num_frames - 1) * HOP + WINDOW - num_samples
    frames = F.pad(sound, (missing // 2, missing - missing // 2)).unfold(-1, WINDOW, HOP) * window
    left = (N_FFT - WINDOW) // 2
    return F.pad(frames, (left, N_FFT - WINDOW - left))


def decibels(frames: Tensor, filters: SplineFilters) -> Tensor:
    """float32 (B, T, 2048) -> (B, 3, 341, T): power in three bands of filters."""
    real, imaginary = filters.waves()
    power = (frames @ real.T) ** 2 + (frames @ imaginary.T) ** 2  # (B, T, 1025)
    bands = power.mT[:, : NUM_BANDS * BAND_HEIGHT].unflatten(1, (NUM_BANDS, BAND_HEIGHT))
    return 10.0 * torch.where(bands > 0, bands, POWER_FLOOR).log10()
