"""Measure a clip against the Bounce world, from pixels and samples alone.

Works on any clip: generated, decoded from a file, of any size, rate and length, with or without sound. What cannot be
found is None, an empty tuple, or NaN in the track; nothing is guessed from the scene.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import dist, log, log2

import numpy as np

from media import AVClip, resample_audio
from media.audio import mix_channels
from synthetic.measure_picture import RGBFloat, Sight, see
from synthetic.measure_sound import Hearing, hear
from synthetic.scene import BACKGROUNDS, COLORS, PITCHES, SAMPLE_RATE, SIZES

MIN_DRIFT = 4.0  # Bounce pixels; less is neither left nor right
# Time constants (s) as `measure` finds them on clean clips; its windows lengthen the short ones by 2 ms.
MATERIAL_DECAYS = {"bell": 0.240, "wood": 0.016, "drum": 0.068}


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a clip shows and sounds like.

    A Bounce pixel is 1/64 of the frame's height. Class names are the nearest class; the number beside each says how
    near. RGB distances are Euclidean on the 0..255 scale: 0 is exact, two classes are at least 85 apart.
    """

    background: str | None  # None: the border of the frame is no plain colour, and then no ball is looked for
    background_rgb: RGBFloat | None
    background_distance: float | None  # RGB distance to `background`
    color: str | None  # of the ball; None: nothing stands out from the background
    color_rgb: RGBFloat | None
    color_distance: float | None  # RGB distance to `color`
    size: str | None
    radius: float | None  # Bounce pixels, of the disc with the ball's median area
    radius_variation: float  # standard deviation of the radius over frames / mean; clean: under 0.01
    visibility: float  # fraction of frames that show a ball
    stray: float  # area unlike the background but apart from the ball / the ball's area; clean: 0
    track: np.ndarray  # float (T, 2): centre of the ball as x, y in Bounce pixels, NaN where out of sight
    side: str | None  # where the ball drifts to
    drift: float | None  # Bounce pixels to the right over the whole clip; |drift| of a scene is 16..34
    roughness: float  # RMS of the track's second differences less gravity and impacts, Bounce pixels; clean: under 0.05
    impacts_seen: tuple[float, ...]  # s, sub-frame
    impact_speeds: tuple[float, ...]  # downward, Bounce pixels per s, one per impact seen
    sharpness: float  # steepest edges / contrast, per analysed pixel: 0.9 as rendered, 0.3 after a blur of sigma 1.3
    flicker: float  # mean absolute change of background pixels between frames, 0..255; clean: under 1
    impacts_heard: tuple[float, ...]  # s
    impact_strengths: tuple[float, ...]  # rise of each onset as a fraction of the loudest moment: 0.28 (faint) .. 1
    impact_levels: tuple[float, ...]  # dB under the clip's loudest moment (<= 0), one per impact heard
    pitch: str | None
    pitch_hz: float | None
    pitch_deviation: float | None  # semitones from `pitch`, signed; clean: under 0.5; classes are 8.7 apart
    tonality: float  # share of energy after the onsets within a semitone of pitch_hz; clean: 0.65 .. 0.95
    material: str | None
    decay_s: float | None  # time constant of the amplitude after an impact; MATERIAL_DECAYS has the classes'
    peak: float  # largest |sample|, 0..1
    clipping: float  # fraction of samples with |sample| >= 0.99
    noise_floor: float  # dB: quietest twentieth of the clip against its loudest moment; clean: under -60; silence: -100

    @property
    def num_seen(self) -> int:
        return len(self.impacts_seen)

    @property
    def num_heard(self) -> int:
        return len(self.impacts_heard)


def measure(clip: AVClip) -> Measurement:
    """Measure a clip; takes about 20 ms for a Bounce clip, and never raises for a valid AVClip."""
    sight, hearing = see(clip.video, clip.fps), hear(_mono(clip))
    background, background_distance = _nearest_rgb(BACKGROUNDS, sight.background_rgb)
    color, color_distance = _nearest_rgb(COLORS, sight.color_rgb)
    pitch = _nearest_ratio(PITCHES, hearing.pitch_hz)
    return Measurement(
        background=background,
        background_rgb=sight.background_rgb,
        background_distance=background_distance,
        color=color,
        color_rgb=sight.color_rgb,
        color_distance=color_distance,
        size=_nearest_ratio(SIZES, sight.radius),
        radius=sight.radius,
        radius_variation=sight.radius_variation,
        visibility=sight.visibility,
        stray=sight.stray,
        track=sight.track,
        side=_side(sight),
        drift=sight.drift,
        roughness=sight.roughness,
        impacts_seen=sight.impacts,
        impact_speeds=sight.impact_speeds,
        sharpness=sight.sharpness,
        flicker=sight.flicker,
        impacts_heard=hearing.impacts,
        impact_strengths=hearing.impact_strengths,
        impact_levels=hearing.impact_levels,
        pitch=pitch,
        pitch_hz=hearing.pitch_hz,
        pitch_deviation=_deviation(hearing, pitch),
        tonality=hearing.tonality,
        material=_nearest_ratio(MATERIAL_DECAYS, hearing.decay_s),
        decay_s=hearing.decay_s,
        peak=hearing.peak,
        clipping=hearing.clipping,
        noise_floor=hearing.noise_floor,
    )


def _mono(clip: AVClip) -> np.ndarray:
    if not clip.has_audio:
        return np.zeros(0, dtype=np.float32)
    return resample_audio(mix_channels(clip.audio, 1), clip.sample_rate, SAMPLE_RATE)[0]


def _nearest_rgb(classes: Mapping[str, RGBFloat], rgb: RGBFloat | None) -> tuple[str | None, float | None]:
    if rgb is None:
        return None, None
    name = min(classes, key=lambda name: dist(classes[name], rgb))
    return name, dist(classes[name], rgb)


def _nearest_ratio(classes: Mapping[str, float], value: float | None) -> str | None:
    if value is None:
        return None
    return min(classes, key=lambda name: abs(log(classes[name] / value)))


def _side(sight: Sight) -> str | None:
    if sight.drift is None or abs(sight.drift) < MIN_DRIFT:
        return None
    return "right" if sight.drift > 0 else "left"


def _deviation(hearing: Hearing, pitch: str | None) -> float | None:
    if hearing.pitch_hz is None or pitch is None:
        return None
    return 12 * log2(hearing.pitch_hz / PITCHES[pitch])
