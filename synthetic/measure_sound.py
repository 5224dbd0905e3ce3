"""Measurement of the sound of a clip with struck sounds, from samples alone.

Levels are relative to the clip's loudest moment, so the scale of the waveform does not matter. Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage, signal

from synthetic.scene import SAMPLE_RATE

WINDOW, HOP = 512, 80  # samples: 32 ms and 5 ms
FRAMES_PER_S = SAMPLE_RATE / HOP
NUM_BANDS, LOWEST_HZ, HIGHEST_HZ = 24, 120.0, 7600.0
MIN_PEAK = 0.003  # a clip with a lower peak amplitude is silent
COMPRESSION = 0.25  # exponent of the energy in a band; like a logarithm, but stable near zero
RISE_FRAMES = 3  # an onset is the difference of the bands this many frames after and before
MIN_ONSET = 0.28  # smallest rise of an onset, as a fraction of the loudest moment
ONSET_LAG_S = 0.009  # windows before a strike already contain it, so the steepest rise is this much early
MIN_GAP_S = 0.15  # between onsets
PITCH_RANGE_HZ = (140.0, 3500.0)
PITCH_WINDOW_S, MAX_SKIP_S = 0.12, 0.04
DECAY_WINDOW_S, DECAY_DEPTH_DB, GROUND_DB = 0.45, 30.0, 6.0
FLOOR_DB = -100.0


@dataclass(frozen=True)
class SoundMeasurement:
    """Audible part of `synthetic.measure.Measurement`, which documents the fields."""

    peak: float = 0.0
    clipping: float = 0.0
    noise_floor: float = FLOOR_DB
    impacts: tuple[float, ...] = ()
    impact_strengths: tuple[float, ...] = ()
    impact_levels: tuple[float, ...] = ()
    pitch_hz: float | None = None
    tonality: float = 0.0
    decay_s: float | None = None


def measure_sound(samples: np.ndarray) -> SoundMeasurement:
    """Measure mono samples, float32 (N,), at 16 kHz; N may be 0."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < MIN_PEAK:
        return SoundMeasurement(peak=peak)
    power = power_spectrogram(samples)  # (F, K)
    loudness = 10 * np.log10(power.sum(1) / power.sum(1).max() + 1e-10)  # (F,) dB, 0 at the loudest
    onsets, strengths = _onsets(power)
    decay_s = _decay(loudness, onsets)
    hz, tonality = _pitch(samples, onsets, skip_s=0.0 if decay_s is None else min(0.5 * decay_s, MAX_SKIP_S))
    return SoundMeasurement(
        peak=peak,
        clipping=float(np.mean(np.abs(samples) >= 0.99)),
        noise_floor=float(np.percentile(loudness, 5)),
        impacts=_times(onsets),
        impact_strengths=tuple(strengths.tolist()),
        impact_levels=tuple(float(loudness[int(onset) : int(onset) + 8].max()) for onset in onsets),
        pitch_hz=hz,
        tonality=tonality,
        decay_s=decay_s,
    )


def onset_times(power: np.ndarray) -> tuple[float, ...]:
    """Return the times in seconds at which strikes begin, from a power spectrogram (F, 257) of `power_spectrogram`."""
    return _times(_onsets(power)[0])


def power_spectrogram(samples: np.ndarray) -> np.ndarray:
    """Return the power spectrogram (F, 257) of mono samples, float32 (N,), N > 0; frame f is centred on f * HOP."""
    # Mirrored ends: a sound that is cut at the end of the clip gives no onset.
    padded = np.pad(samples, WINDOW // 2, mode="reflect" if len(samples) > WINDOW else "constant")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]  # (F, WINDOW)
    spectrum = np.fft.rfft(frames * _window(), axis=1)
    return spectrum.real**2 + spectrum.imag**2


@lru_cache(maxsize=1)
def _window() -> np.ndarray:
    return np.hanning(WINDOW + 1)[:WINDOW].astype(np.float32)


@lru_cache(maxsize=1)
def mel_bands() -> np.ndarray:
    """Return triangular mel filters (257, NUM_BANDS)."""
    mel = np.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), NUM_BANDS + 2)
    bins = _mel(np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE))[:, None]
    low, centre, high = mel[:-2], mel[1:-1], mel[2:]
    return np.maximum(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0.0)


def _mel(hz: np.ndarray | float) -> np.ndarray:
    return 2595 * np.log10(1 + np.asarray(hz) / 700)


def _onsets(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames at which the bands rise together, and the rises as fractions of the loudest moment."""
    energy = power @ mel_bands()
    loudest = max(
        energy.max(), 1e-6 * power.sum(1).max()
    )  # the bands of a constant signal contain only rounding errors
    level = (energy / loudest) ** COMPRESSION  # (F, NUM_BANDS)
    padded = np.pad(level, ((RISE_FRAMES, RISE_FRAMES), (0, 0)), mode="edge")
    rise = np.maximum(padded[2 * RISE_FRAMES :] - padded[: -2 * RISE_FRAMES], 0.0).sum(1) / max(level.sum(1).max(), 1.0)
    peaks, properties = signal.find_peaks(
        rise, height=MIN_ONSET, prominence=0.7 * MIN_ONSET, distance=round(MIN_GAP_S * FRAMES_PER_S)
    )
    return peaks.astype(np.float64), properties["peak_heights"]


def _times(onsets: np.ndarray) -> tuple[float, ...]:
    return tuple((onsets / FRAMES_PER_S + ONSET_LAG_S).tolist())


def _pitch(samples: np.ndarray, onsets: np.ndarray, skip_s: float) -> tuple[float | None, float]:
    """Return the strongest frequency after all onsets together, and the share of energy within a semitone of it.

    The first `skip_s` seconds of each attack contain noise and glide and are left out if the sound lasts longer.
    """
    length, size = round(PITCH_WINDOW_S * SAMPLE_RATE), 8192
    spectrum = np.zeros(size // 2 + 1)
    for onset in onsets:
        piece = samples[int(onset) * HOP + round(skip_s * SAMPLE_RATE) :][:length]
        fade = 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, len(piece)))  # preserves the attack of a short strike
        spectrum += np.abs(np.fft.rfft(piece * fade, size)) ** 2
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    inside = (hz >= PITCH_RANGE_HZ[0]) & (hz <= PITCH_RANGE_HZ[1])
    if not len(onsets) or not spectrum[inside].any():
        return None, 0.0
    best = int(np.argmax(np.where(inside, spectrum, 0.0)))
    left, centre, right = np.log(spectrum[best - 1 : best + 2] + 1e-20)
    bend = left - 2 * centre + right
    frequency = float((best + (0.5 * (left - right) / bend if bend < 0 else 0.0)) * SAMPLE_RATE / size)
    near = np.abs(hz - frequency) <= np.maximum(0.0595 * frequency, 20.0)
    return frequency, float(spectrum[near].sum() / spectrum.sum())


def _decay(loudness: np.ndarray, onsets: np.ndarray) -> float | None:
    """Return the time constant of the amplitude after the onsets in seconds (median); None if it cannot be measured."""
    # Griffin-Lim's phases cause beats: smoothing over 35 ms bridges their dips and lengthens the shortest strike by a
    # few ms.
    calm = 10 * np.log10(ndimage.uniform_filter1d(10 ** (loudness / 10), 7))
    ends = np.append(onsets[1:] - 2 * RISE_FRAMES, len(calm))[: len(onsets)]
    constants = []
    for onset, end in zip(onsets, ends, strict=True):
        stop = int(min(end, onset + DECAY_WINDOW_S * FRAMES_PER_S))
        peak = int(onset) + int(np.argmax(calm[int(onset) : int(onset) + 12]))
        tail = calm[peak:stop]
        if len(tail) >= 3:
            # Only the straight part of the decay, without the noise floor at its end.
            bottom = min(max(tail[0] - DECAY_DEPTH_DB, tail.min() + GROUND_DB), tail[0])
            reach = int(np.flatnonzero(tail >= bottom)[-1]) + 1
            tail = tail[: max(reach, 3)]
            slope = np.polyfit(np.arange(len(tail)), tail, 1)[0] * FRAMES_PER_S  # dB per second
            constants.append(20 / np.log(10) / max(-slope, 1.0))
    return float(np.median(constants)) if constants else None
