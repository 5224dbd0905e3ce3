"""Log-mel spectrograms and their inversion, with the front end of the published audio autoencoder (AudioLDM2).

16 kHz, 1024-point periodic Hann window, hop 160, 64 Slaney bands up to 8 kHz, natural log of the magnitude (not power).
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torchaudio.functional as AF
from torch import Tensor

SAMPLE_RATE = 16_000
N_FFT = 1024
HOP_LENGTH = 160
NUM_MELS = 64
MAX_FREQUENCY_HZ = 8_000.0
MAGNITUDE_FLOOR = 1e-5
PEAK = 0.5  # training normalises every waveform to this peak


def normalize_waveform(waveform: Tensor) -> Tensor:
    """Remove the mean of each waveform, float (B, samples), and scale its peak to 0.5, as in training."""
    centred = waveform - waveform.mean(dim=-1, keepdim=True)
    return (centred / (centred.abs().amax(dim=-1, keepdim=True) + 1e-8) * PEAK).clamp(-1, 1)


def log_mel(waveform: Tensor, num_frames: int, pad_value: float = 0.0) -> Tensor:
    """Return the log-mel spectrogram of 16 kHz sound, cut or padded to `num_frames`.

    Args:
        waveform: float (B, samples) in [-1, 1], already normalised.
        pad_value: value of frames past the end. The release pads with 0.0, which in log space is loud, not silent.

    Returns:
        float32 (B, num_frames, 64).
    """
    # float64: near the floor the logarithm amplifies float32 rounding errors to 6e-3.
    spectrum = torch.stft(
        waveform.double(),
        N_FFT,
        HOP_LENGTH,
        window=torch.hann_window(N_FFT, dtype=torch.float64, device=waveform.device),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    mel = _filterbank().to(waveform.device).double() @ spectrum.abs()
    log = mel.clamp(min=MAGNITUDE_FLOOR).log().float().transpose(1, 2)[:, :num_frames]
    missing = num_frames - log.shape[1]
    return torch.nn.functional.pad(log, (0, 0, 0, missing), value=pad_value) if missing > 0 else log


def invert_log_mel(log: Tensor, num_samples: int, num_iterations: int = 32) -> Tensor:
    """Return a waveform with approximately the given log-mel spectrogram; deterministic.

    The magnitude spectrum is a non-negative least-squares solution; Griffin-Lim then finds the phase, starting at zero.

    Args:
        log: float (B, frames, 64).
        num_samples: length of the waveform, which is cut or padded with zeros.
        num_iterations: iterations of Griffin-Lim.

    Returns:
        float32 (B, num_samples) in [-1, 1].
    """
    mel = log.transpose(1, 2).exp() - MAGNITUDE_FLOOR
    magnitude = _nonnegative_inverse(mel.clamp(min=0.0))
    waveform = AF.griffinlim(
        magnitude,
        window=torch.hann_window(N_FFT, device=log.device),
        n_fft=N_FFT,
        hop_length=HOP_LENGTH,
        win_length=N_FFT,
        power=1.0,
        n_iter=num_iterations,
        momentum=0.9,
        length=None,
        rand_init=False,
    )
    missing = num_samples - waveform.shape[-1]
    waveform = torch.nn.functional.pad(waveform, (0, missing)) if missing > 0 else waveform[..., :num_samples]
    return waveform.clamp(-1, 1)


def _nonnegative_inverse(mel: Tensor, num_iterations: int = 30) -> Tensor:
    """Invert the filterbank by multiplicative updates: (B, 64, frames) -> (B, 513, frames) >= 0.

    The result satisfies filterbank @ result ~ mel.
    """
    filters = _filterbank().to(mel.device)
    projected = filters.T @ mel
    magnitude = projected / filters.sum(dim=0).clamp(min=1e-8)[:, None]
    for _ in range(num_iterations):
        magnitude = magnitude * projected / (filters.T @ (filters @ magnitude)).clamp(min=1e-10)
    return magnitude


@lru_cache(maxsize=1)
def _filterbank() -> Tensor:
    """Return the mel filters on the Slaney scale with Slaney normalisation, float32 (64, 513)."""
    filters = AF.melscale_fbanks(
        N_FFT // 2 + 1, 0.0, MAX_FREQUENCY_HZ, NUM_MELS, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    return filters.T.contiguous()
