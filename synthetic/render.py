"""Rendering of the video and sound of a Bounce scene, vectorised over frames and samples: a few ms per clip."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from media import AVClip
from synthetic.scene import (
    BACKGROUNDS,
    COLORS,
    FPS,
    HEIGHT,
    NUM_FRAMES,
    NUM_SAMPLES,
    PITCHES,
    SAMPLE_RATE,
    WIDTH,
    Scene,
)

# Material: time constant of the fundamental (s); partials as (frequency ratio, amplitude, decay relative to the
# fundamental's); pitch glide at the strike (ratio - 1); the noise burst's (amplitude, time constant in s).
STRIKES = {
    "bell": (0.250, ((1.0, 1.0, 1.0), (2.0, 0.22, 0.7), (2.76, 0.30, 0.6), (4.2, 0.12, 0.35)), 0.0, (0.0, 1.0)),
    "drum": (0.070, ((1.0, 1.0, 1.0), (1.59, 0.25, 0.6)), 0.35, (0.55, 0.030)),
    "wood": (0.014, ((1.0, 1.0, 1.0), (2.0, 0.30, 0.6), (3.0, 0.15, 0.4)), 0.0, (0.15, 0.003)),
}
GLIDE_S = 0.015
STRIKE_SECONDS = 1.8  # after this time the slowest decay is inaudible (-62 dB)
MAX_PARTIAL_HZ = 7_500.0
ATTACK_S = 0.001  # rise time of every strike, so that an onset does not click above the Nyquist frequency
LOUDEST, FULL_SPEED = 0.6, 300.0  # peak amplitude of a strike at FULL_SPEED (pixels per second) and above
SOFTEST = 0.25  # as a fraction of the loudest
DITHER = 5e-5


def render_clip(scene: Scene) -> AVClip:
    """Render the scene as a clip: video (33, 64, 64, 3) at 16 fps, audio (1, 33000) at 16 kHz."""
    return AVClip(video=render_video(scene), fps=FPS, audio=render_audio(scene), sample_rate=SAMPLE_RATE)


def render_video(scene: Scene) -> np.ndarray:
    """Render the frames, uint8 (33, 64, 64, 3). Frame i shows the time i / 16 s; the disc's edge is anti-aliased."""
    x, y = scene.centres(np.arange(NUM_FRAMES) / FPS)  # (T,) each
    columns = (np.arange(WIDTH, dtype=np.float32) + 0.5) - x[:, None].astype(np.float32)  # (T, W)
    rows = (np.arange(HEIGHT, dtype=np.float32) + 0.5) - y[:, None].astype(np.float32)  # (T, H)
    distance = np.sqrt(columns[:, None, :] ** 2 + rows[:, :, None] ** 2)  # (T, H, W)
    coverage = np.clip(scene.radius + 0.5 - distance, 0.0, 1.0)
    # A frame has at most 256 shades between background and ball, so blending is one table look-up.
    background = np.asarray(BACKGROUNDS[scene.background], dtype=np.float32)
    ball = np.asarray(COLORS[scene.color], dtype=np.float32)
    shades = background + (ball - background) * np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    return np.rint(shades).astype(np.uint8)[np.rint(coverage * 255).astype(np.uint8)]


def render_audio(scene: Scene) -> np.ndarray:
    """Render the sound, float32 (1, 33000): one strike per impact, louder for harder impacts, with dither at -86 dB."""
    rng = np.random.default_rng((scene.seed, 1))  # separate stream: the dither does not depend on the scene's draws
    audio = rng.uniform(-DITHER, DITHER, NUM_SAMPLES).astype(np.float32)
    strike = _strike(scene.pitch, scene.material)
    for time, speed in zip(scene.impact_times, scene.impact_speeds, strict=True):
        start = round(time * SAMPLE_RATE)
        length = min(len(strike), NUM_SAMPLES - start)
        audio[start : start + length] += strike_level(speed) * strike[:length]
    return audio[None]


def strike_level(speed: float) -> float:
    """Return the peak amplitude of the strike of an impact at `speed` pixels per second."""
    return LOUDEST * (SOFTEST + (1 - SOFTEST) * min(speed / FULL_SPEED, 1.0))


@lru_cache(maxsize=len(PITCHES) * len(STRIKES))
def _strike(pitch: str, material: str) -> np.ndarray:
    """Return the sound of one impact, float32 (STRIKE_SECONDS * 16000,), peak 1; cached, as there are only 18."""
    decay_s, partials, glide, (noise_level, noise_s) = STRIKES[material]
    base = PITCHES[pitch]
    time = np.arange(round(STRIKE_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * np.pi * base * (time + glide * GLIDE_S * (1 - np.exp(-time / GLIDE_S)))
    sound = np.zeros_like(time)
    for ratio, level, slowness in partials:
        if base * ratio < MAX_PARTIAL_HZ:
            sound += level * np.sin(ratio * phase) * np.exp(-time / (decay_s * slowness))
    noise = np.random.default_rng(0).standard_normal(len(time))
    sound += 0.5 * noise_level * noise * np.exp(-time / noise_s)
    sound *= np.minimum(time / ATTACK_S, 1.0)
    strike = (sound / np.abs(sound).max()).astype(np.float32)
    strike.flags.writeable = False
    return strike
