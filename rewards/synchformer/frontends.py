"""Inputs of the network from a clip: frames at a constant rate, and log-mel spectrograms of segments."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio.functional as AF
from torch import Tensor

from media.clip import AVClip
from rewards.synchformer.config import SynchformerConfig

LOG_FLOOR = 1e-6
MAX_RATE_DENOMINATOR = 1001  # of 24000/1001 and its like: clips hold their rate as a rounded number


def frame_indices(num_frames: int, clip_fps: float, fps: int) -> np.ndarray:
    """The clip's frame that each frame at the new rate shows, int64 (count,); rounds as ffmpeg's `fps` filter does.

    Frame k moves to the nearest new instant, halves up; a new instant shows the last frame that is there or before.
    (docs/upstream/synchformer.md, section 6.1, with the end time of the last frame known.)
    """
    rate = Fraction(clip_fps).limit_denominator(MAX_RATE_DENOMINATOR)
    ratio = fps / max(rate, Fraction(1, MAX_RATE_DENOMINATOR))
    times = np.arange(num_frames + 1, dtype=np.int64)  # the last is the clip's end
    instants = (2 * times * ratio.numerator + ratio.denominator) // (2 * ratio.denominator)
    return np.searchsorted(instants[:-1], np.arange(instants[-1]), side="right") - 1


def prepare_frames(clip: AVClip, num_frames: int, config: SynchformerConfig) -> Tensor:
    """The first `num_frames` frames at `config.fps`, uint8 (num_frames, 3, image_size, image_size).

    Black frames follow where the clip is shorter. Only frames that are shown are resized, each once.
    """
    shown, places = np.unique(frame_indices(clip.num_frames, clip.fps, config.fps)[:num_frames], return_inverse=True)
    frames = torch.zeros(num_frames, 3, config.image_size, config.image_size, dtype=torch.uint8)
    if len(shown):
        frames[: len(places)] = resize_and_crop(torch.from_numpy(clip.video[shown]), config.image_size)[places]
    return frames


def resize_and_crop(frames: Tensor, size: int) -> Tensor:
    """uint8 (T, H, W, 3) -> (T, 3, size, size): the short side resized (bicubic, anti-aliased), the centre cut out.

    On bytes, as the reference does: in float a fifth of the values would differ by a level or two.
    """
    height, width = frames.shape[1:3]
    short, long = min(height, width), max(height, width)
    longer = int(size * long / short)
    new_height, new_width = (longer, size) if height > width else (size, longer)
    planes = frames.permute(0, 3, 1, 2)
    if (new_height, new_width) != (height, width):
        planes = F.interpolate(planes, (new_height, new_width), mode="bicubic", antialias=True, align_corners=False)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)  # halves to even, as the reference
    return planes[:, :, top : top + size, left : left + size]


def cut_frames(frames: Tensor, config: SynchformerConfig) -> list[Tensor]:
    """Overlapping segments (frames_per_segment, 3, H, W) of frames (T, 3, H, W), as views."""
    starts = range(0, len(frames) - config.frames_per_segment + 1, config.segment_hop)
    return [frames[start : start + config.frames_per_segment] for start in starts]


def normalise_frames(frames: Tensor) -> Tensor:
    """Bytes to float32 in [-1, 1]."""
    return (frames.float() / 255 - 0.5) / 0.5


def prepare_waveform(clip: AVClip, num_samples: int, config: SynchformerConfig) -> Tensor:
    """The first `num_samples` samples at `config.sample_rate`, mono, float32 (num_samples,); zeros follow the end."""
    mono = torch.from_numpy(clip.audio).mean(dim=0)
    if clip.sample_rate != config.sample_rate:
        mono = AF.resample(mono, clip.sample_rate, config.sample_rate)  # its defaults are the published settings
    return F.pad(mono[:num_samples], (0, max(0, num_samples - len(mono))))


def mel_segments(waveform: Tensor, config: SynchformerConfig) -> Tensor:
    """Log-mel of the overlapping segments of a waveform (..., samples): (..., S, 1, num_mels, mel_frames).

    Each segment has a spectrogram of its own. The added last column is 0 before normalisation, as published, which is
    loud, not silent (docs/upstream/synchformer.md, section 5).
    """
    segments = waveform.unfold(-1, config.segment_samples, config.segment_hop_samples)  # (..., S, segment_samples)
    spectrum = torch.stft(
        segments.flatten(0, -2),
        config.n_fft,
        config.hop_length,
        win_length=config.window_length,
        window=torch.hann_window(config.window_length, device=waveform.device),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    power = spectrum.real.square() + spectrum.imag.square()  # (N, n_fft / 2 + 1, frames)
    mel = _filterbank(config.n_fft, config.num_mels, config.sample_rate).to(waveform.device) @ power
    log = F.pad((mel + LOG_FLOOR).log(), (0, config.mel_frames - mel.shape[-1]))
    normalised = (log - config.mel_mean) / (2 * config.mel_std)
    return normalised.unflatten(0, segments.shape[:-1]).unsqueeze(-3)


@lru_cache(maxsize=4)
def _filterbank(n_fft: int, num_mels: int, sample_rate: int) -> Tensor:
    """HTK-scale triangles up to the Nyquist frequency, without area normalisation; float32 (num_mels, n_fft/2 + 1)."""
    filters = AF.melscale_fbanks(n_fft // 2 + 1, 0.0, sample_rate / 2, num_mels, sample_rate, mel_scale="htk")
    return filters.T.contiguous()
