"""Corruptions of Bounce clips, by name and strength, which the learned rewards are trained to detect.

Strength 1 is obvious to the eye or ear, 0.3 is slight. All random draws come from the given generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.signal import butter, sosfiltfilt

from media import AVClip

Corruption = Callable[[AVClip, float, np.random.Generator], AVClip]

WEAKEST = 0.3  # strengths in training and in trials are drawn between this and 1


def blur(clip: AVClip, strength: float, rng: np.random.Generator) -> AVClip:
    """Blur the frames with a Gaussian of up to 3.5 pixels."""
    sigma = 3.5 * strength
    return _with_video(clip, gaussian_filter(clip.video.astype(np.float32), (0, sigma, sigma, 0)))


def pixel_noise(clip: AVClip, strength: float, rng: np.random.Generator) -> AVClip:
    """Add grain that changes with every frame, with a standard deviation of up to 60 of 255."""
    return _with_video(clip, clip.video + 60 * strength * rng.standard_normal(clip.video.shape, dtype=np.float32))


def flicker(clip: AVClip, strength: float, rng: np.random.Generator) -> AVClip:
    """Change the brightness from frame to frame by up to 70 %."""
    gains = 1 + 0.7 * strength * rng.choice([-1.0, 1.0], clip.num_frames) * rng.uniform(0.5, 1, clip.num_frames)
    return _with_video(clip, (clip.video + 20.0) * gains[:, None, None, None])  # the offset makes black flicker too


def freeze(clip: AVClip, strength: float, rng: np.random.Generator) -> AVClip:
    """Freeze the picture for up to three quarters of the clip; afterwards it jumps to its right state."""
    length = max(int(0.75 * strength * clip.num_frames), 2)
    start = int(rng.integers(0, clip.num_frames - length + 1))
    frames = np.arange(clip.num_frames)
    frames[start : start + length] = start
    return replace(clip, video=clip.video[frames])


def judder(clip: AVClip, strength: float, rng: np.random.Generator) -> AVClip:
    """Disorder the frames: each is shown up to 10 frames too early or too late."""
    moved = np.arange(clip.num_frames) + rng.uniform(-10, 10, clip.num_frames) * strength
    return replace(clip, video=clip.video[np.clip(np.rint(moved), 0, clip.num_frames - 1).astype(int)])


def shake(clip: AVClip, strength: float, rng: np.random.Generator) -> AVClip:
    """Shift each frame by a random offset of up to 8 pixels."""
    shifts = np.rint(rng.uniform(-8, 8, (clip.num_frames, 2)) * strength).astype(int)
    moved = [np.roll(frame, tuple(shift), (0, 1)) for frame, shift in zip(clip.video, shifts, strict=True)]
    return replace(clip, video=np.stack(moved))


def hiss(clip: AVClip, strength: float, rng: np.random.Generator) -> AVClip:
    """Add white noise at up to -14 dB of full scale."""
    return _with_audio(clip, clip.audio + 0.2 * strength**2 * rng.standard_normal(clip.audio.shape))


def clipping(clip: AVClip, strength: float, rng: np.random.Generator) -> AVClip:
    """Amplify the sound by up to 40 times and clip it, as in an overloaded recording."""
    return _with_audio(clip, clip.audio * (1 + 39 * strength**2))


def muffle(clip: AVClip, strength: float, rng: np.random.Generator) -> AVClip:
    """Muffle the sound with a low-pass filter, down to 100 Hz."""
    filtered = butter(2, 100 * 3 ** (1 - strength), fs=clip.sample_rate, output="sos")
    return _with_audio(clip, sosfiltfilt(filtered, clip.audio, axis=1))


def dropouts(clip: AVClip, strength: float, rng: np.random.Generator) -> AVClip:
    """Silence intervals of 10 ms, up to 30 per second."""
    gate = np.ones(clip.num_samples)
    length = clip.sample_rate // 100
    for start in rng.integers(0, clip.num_samples, int(30 * strength * clip.duration_s)):
        gate[start : start + length] = 0
    return _with_audio(clip, clip.audio * gate)


def shift_sound(clip: AVClip, seconds: float) -> AVClip:
    """Delay the sound by `seconds` (negative: advance it); the gap is silent."""
    samples = round(seconds * clip.sample_rate)
    shifted = np.zeros_like(clip.audio)
    if samples >= 0:
        shifted[:, samples:] = clip.audio[:, : clip.num_samples - samples]
    else:
        shifted[:, :samples] = clip.audio[:, -samples:]
    return replace(clip, audio=shifted)


def corrupt(clip: AVClip, kinds: dict[str, Corruption], rng: np.random.Generator) -> tuple[AVClip, str, float]:
    """Apply one of the kinds, chosen at random, at a random strength; return the clip, the kind and the strength."""
    kind = tuple(kinds)[rng.integers(len(kinds))]
    strength = rng.uniform(WEAKEST, 1)
    return kinds[kind](clip, strength, rng), kind, strength


PICTURE: dict[str, Corruption] = {"blur": blur, "pixel_noise": pixel_noise, "flicker": flicker}
MOTION: dict[str, Corruption] = {"freeze": freeze, "judder": judder, "shake": shake}
SOUND: dict[str, Corruption] = {"hiss": hiss, "clipping": clipping, "muffle": muffle, "dropouts": dropouts}


def _with_video(clip: AVClip, video: np.ndarray) -> AVClip:
    return replace(clip, video=np.clip(np.rint(video), 0, 255).astype(np.uint8))


def _with_audio(clip: AVClip, audio: np.ndarray) -> AVClip:
    return replace(clip, audio=np.clip(audio, -1, 1).astype(np.float32))
