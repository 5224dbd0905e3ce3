"""Inputs of CAVP from a clip: its first whole seconds, as 4 frames and 64 mel frames each (section 8)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torchaudio.functional as AF
from PIL import Image
from torch import Tensor

from evaluation.judges.cavp.network import NUM_MELS
from media.audio import fit_length, resample_audio
from media.clip import AVClip
from rewards.synchformer.frontends import frame_indices

FPS = 4
SAMPLE_RATE = 16_000  # Hz
FFT_SIZE, HOP = 1024, 250  # samples; a hop gives 16 mel frames for each frame of the picture
LOW_HZ, HIGH_HZ = 125.0, 7600.0
FLOOR = 1e-5
TIME_EPS_S = 1e-6  # tolerance for rounding of times


def whole_seconds(num_frames: int, fps: float) -> int:
    return int(num_frames / fps + TIME_EPS_S)


def shown_frames(num_frames: int, fps: float) -> np.ndarray:
    """The clip's frame that each 1/4 s of its whole seconds shows, int64 (4 * seconds,)."""
    seconds = whole_seconds(num_frames, fps)
    within = min(num_frames, math.ceil((seconds - TIME_EPS_S) * fps))
    return frame_indices(within, fps, FPS)[: seconds * FPS]


def pictures(video: np.ndarray, indices: np.ndarray, size: int) -> Tensor:
    """Frames squeezed into a square, aspect not kept: uint8 (T, H, W, 3) -> float32 (3, len(indices), size, size).

    The release encodes the video once more at 4 frames per second; the frames here are the clip's own.
    """
    shown, places = np.unique(indices, return_inverse=True)
    squeezed = [Image.fromarray(video[index]).resize((size, size), Image.Resampling.BILINEAR) for index in shown]
    frames = torch.from_numpy(np.stack([np.asarray(picture) for picture in squeezed]))[torch.from_numpy(places)]
    return frames.permute(3, 0, 1, 2).float() / 255


def waveform(clip: AVClip, seconds: int) -> Tensor:
    """The first seconds of the sound, mono at 16 kHz, less one sample; zeros follow a shorter sound's end."""
    mono = resample_audio(clip.audio.mean(axis=0, keepdims=True), clip.sample_rate, SAMPLE_RATE)
    return torch.from_numpy(fit_length(mono, seconds * SAMPLE_RATE)[0, :-1])


def log_mel(wave: Tensor) -> Tensor:
    """Mel spectrogram of amplitudes, from -80 to 20 dB, brought to [0, 1]: (samples,) -> (NUM_MELS, N)."""
    window = torch.hann_window(FFT_SIZE)
    spectrum = torch.stft(wave, FFT_SIZE, HOP, window=window, pad_mode="constant", return_complex=True)
    decibels = 20 * (_filterbank() @ spectrum.abs()).clamp(min=FLOOR).log10()
    return ((decibels - 20 + 100) / 100).clamp(0, 1)


@lru_cache(maxsize=1)
def _filterbank() -> Tensor:
    """Triangles of equal area on Slaney's mel scale, float32 (NUM_MELS, FFT_SIZE / 2 + 1)."""
    bins = FFT_SIZE // 2 + 1
    filters = AF.melscale_fbanks(bins, LOW_HZ, HIGH_HZ, NUM_MELS, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    return filters.T.contiguous()
