"""Onsets of a sound: the moments at which its bands rise together, and its likeness to itself some time later.

For decisions about any clip, such as whether a shift of its sound would be noticed. `synthetic.measure_sound` measures
Bounce's struck sounds more finely; AV-Align's onsets are those of its definition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from media.audio import mix_channels, resample_audio
from media.mel import HOP_LENGTH, SAMPLE_RATE, log_mel

FRAMES_PER_S = SAMPLE_RATE / HOP_LENGTH  # 100
MIN_PEAK = 0.003  # a sound with a lower peak amplitude is silent
RISE_FRAMES = 2  # a rise is the difference of the bands this many frames after and before
# Least rise of an onset, as a fraction of the loudest moment. Measured: struck sounds 0.6 to 1; white and brown noise,
# hum, and tones that beat, swell or glide, at most 0.13.
MIN_RISE = 0.2
MIN_GAP_S = 0.1  # between onsets
ONSET_LAG_S = 0.014  # windows before a strike already contain it, so the steepest rise is this much early
BLIND_FRAMES = 6  # at the end: their rise would be that of the mirrored end, which clicks
SAME_TIME_S = 0.02  # standard deviation of the time of one onset, for likeness


@dataclass(frozen=True, eq=False)
class Onsets:
    """Onsets of one sound, in order of time.

    Attributes:
        times: (N,) seconds.
        rises: (N,) rise of each, as a fraction of the level of the loudest moment.
    """

    times: np.ndarray
    rises: np.ndarray

    def __len__(self) -> int:
        return len(self.times)

    def kept(self, shift_s: float, duration_s: float) -> np.ndarray:
        """Return which onsets, bool (N,), stay inside a clip of `duration_s` if the sound is delayed by `shift_s`."""
        moved = self.times + shift_s
        return (moved >= 0) & (moved < duration_s)

    def likeness(self, shift_s: float, duration_s: float) -> float:
        """Return the autocorrelation of the onsets at a lag, in terms of the onsets that a delay by it keeps.

        Each onset is a bump of its rise and of 20 ms: 1 if every kept onset falls on one as strong, as at lag 0 and at
        the period of a beat; 0 if none falls on any, or none is kept.
        """
        kept = self.kept(shift_s, duration_s)
        distance = (self.times[kept] + shift_s)[:, None] - self.times[None]
        overlap = np.exp(-np.square(distance) / (4 * SAME_TIME_S**2))
        energy = np.square(self.rises[kept]).sum()
        return float(self.rises[kept] @ overlap @ self.rises / energy) if energy else 0.0


def find_onsets(audio: np.ndarray, sample_rate: int) -> Onsets:
    """Find the onsets of a sound, float32 (channels, samples); levels are relative to its loudest moment."""
    mono = resample_audio(mix_channels(audio, 1), sample_rate, SAMPLE_RATE)
    if np.abs(mono).max(initial=0.0) < MIN_PEAK:
        return Onsets(np.zeros(0), np.zeros(0))
    from scipy.signal import find_peaks  # imported late: slow to import

    rises = onset_envelope(mono[0])
    peaks, _ = find_peaks(
        rises, height=MIN_RISE, prominence=0.7 * MIN_RISE, distance=max(1, round(MIN_GAP_S * FRAMES_PER_S))
    )
    return Onsets(peaks / FRAMES_PER_S + ONSET_LAG_S, rises[peaks])


def onset_envelope(waveform: np.ndarray) -> np.ndarray:
    """Return the rise of the mel bands around each frame of 10 ms, float (frames,), of sound at 16 kHz, (samples,).

    A rise is a fraction of the level of the loudest frame; the level of a band is the root of its magnitude, which is
    like a logarithm but stable near zero. The last 60 ms have no rise.
    """
    num_frames = 1 + len(waveform) // HOP_LENGTH
    magnitude = log_mel(torch.from_numpy(np.ascontiguousarray(waveform))[None], num_frames)[0].exp().numpy()  # (F, 64)
    level = np.sqrt(magnitude / magnitude.max())
    padded = np.pad(level, ((RISE_FRAMES, RISE_FRAMES), (0, 0)), mode="edge")
    rise = np.maximum(padded[2 * RISE_FRAMES :] - padded[: -2 * RISE_FRAMES], 0.0).sum(1) / level.sum(1).max()
    rise[-BLIND_FRAMES:] = 0.0
    return rise
