"""Counter-metrics of the sound: loudness, silence, clipping, onsets, and features for distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.counters.pooling import averaging
from media.clip import AVClip
from synthetic.measure import mono_samples
from synthetic.measure_sound import MIN_PEAK, NUM_BANDS, mel_bands, onset_times, power_spectrogram

MIN_LOUDNESS_DB = -70.0  # of a silent clip: minus infinity has no mean
SILENT_DB = -60.0  # a window below this level is silent ...
SILENT_BELOW_LOUDEST_DB = 40.0  # ... and so is one this far below the loudest window
WINDOW_S = 0.02
FULL_SCALE = 0.99
FEATURE_TIMES, FEATURE_DEPTH_DB = 16, 60.0


@dataclass(frozen=True, eq=False)
class SoundCounters:
    """Properties of a sound; units as in `evaluation.counters.names`."""

    loudness: float
    silence: float
    clipping: float
    onsets: tuple[float, ...]  # seconds
    features: np.ndarray  # float16 (16, 24): times, mel bands; dB below the loudest one, at least -60


def measure_sound(clip: AVClip) -> SoundCounters | None:
    """Measure the sound of a clip; None for a clip without an audio track."""
    if not clip.has_audio:
        return None
    onsets, features = _spectral(mono_samples(clip))
    rms = float(np.sqrt(np.square(clip.audio, dtype=np.float64).mean()))
    return SoundCounters(
        loudness=max(_decibels(rms), MIN_LOUDNESS_DB),
        silence=_silence(clip.audio, clip.sample_rate),
        clipping=float((np.abs(clip.audio) >= FULL_SCALE).mean()),
        onsets=onsets,
        features=features,
    )


def _silence(audio: np.ndarray, rate: int) -> float:
    """Return the share of silent windows of audio, float32 (channels, samples)."""
    size = min(max(round(WINDOW_S * rate), 1), audio.shape[1])
    windows = audio[:, : audio.shape[1] // size * size].reshape(len(audio), -1, size)
    levels = np.sqrt(np.square(windows, dtype=np.float64).mean(axis=(0, 2)))
    limit = max(_amplitude(SILENT_DB), levels.max() * _amplitude(-SILENT_BELOW_LOUDEST_DB))
    return float((levels < limit).mean())


def _spectral(samples: np.ndarray) -> tuple[tuple[float, ...], np.ndarray]:
    """Return the onsets and the features of mono samples at 16 kHz."""
    if np.abs(samples).max(initial=0.0) < MIN_PEAK:
        return (), np.full((FEATURE_TIMES, NUM_BANDS), -FEATURE_DEPTH_DB, dtype=np.float16)
    power = power_spectrogram(samples)
    energy = averaging(len(power), FEATURE_TIMES) @ power @ mel_bands()
    # Relative to the loudest: louder copies of a sound are no diversity.
    level = 10 * np.log10(energy / max(float(energy.max()), 1e-12) + 1e-12)
    return onset_times(power), np.maximum(level, -FEATURE_DEPTH_DB).astype(np.float16)


def _decibels(amplitude: float) -> float:
    return 20 * float(np.log10(max(amplitude, 1e-12)))


def _amplitude(decibels: float) -> float:
    return float(10 ** (decibels / 20))
