"""Measurement of a clip's Bounce attributes from pixels and samples alone.

Works on any clip, generated or decoded from a file, of any size, rate and length, with or without sound. A property
that cannot be measured is None, an empty tuple, or NaN in the track; no knowledge of the scene is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import dist, log, log2

import numpy as np

from media import AVClip, resample_audio
from media.audio import mix_channels
from synthetic.measure_picture import PictureMeasurement, RGBFloat, measure_picture
from synthetic.measure_sound import SoundMeasurement, measure_sound
from synthetic.scene import BACKGROUNDS, COLORS, PITCHES, SAMPLE_RATE, SIZES

MIN_DRIFT = 4.0  # Bounce pixels; a smaller drift is neither left nor right
# Time constants (s) that `measure_clip` finds on clean clips; its windows lengthen the short ones by 2 ms.
MATERIAL_DECAYS = {"bell": 0.240, "wood": 0.016, "drum": 0.068}


@dataclass(frozen=True, eq=False)
class Measurement:
    """Measured properties of a clip.

    A Bounce pixel is 1/64 of the frame's height. Class names give the nearest class; the number after each name is
    the distance to that class or the measured value. RGB distances are Euclidean on the 0..255 scale: 0 is exact, two
    classes are at least 85 apart.
    """

    background: str | None  # None: the border of the frame has no plain colour; then no ball is searched for
    background_rgb: RGBFloat | None
    background_distance: float | None  # RGB distance to `background`
    color: str | None  # of the ball; None: nothing contrasts with the background
    color_rgb: RGBFloat | None
    color_distance: float | None  # RGB distance to `color`
    size: str | None
    radius: float | None  # Bounce pixels; radius of a disc with the ball's median area
    radius_variation: float  # standard deviation of the radius over frames / mean; clean: under 0.01
    visibility: float  # fraction of frames that show a ball
    stray: float  # area that differs from the background, outside the ball / the ball's area; clean: 0
    track: np.ndarray  # float (T, 2): centre of the ball as x, y in Bounce pixels, NaN where it is not visible
    side: str | None  # side to which the ball drifts
    drift: float | None  # Bounce pixels to the right over the whole clip; |drift| of a scene is 16..34
    roughness: float  # RMS of the track's second differences less gravity and impacts, Bounce pixels; clean: under 0.05
    impacts_seen: tuple[float, ...]  # s, sub-frame
    impact_speeds: tuple[float, ...]  # downward, Bounce pixels per s, one per impact seen
    sharpness: float  # steepest edges / contrast, per analysed pixel: 0.9 as rendered, 0.3 after a blur of sigma 1.3
    flicker: float  # mean absolute change of background pixels between frames, 0..255; clean: under 1
    impacts_heard: tuple[float, ...]  # s
    impact_strengths: tuple[float, ...]  # rise of each onset as a fraction of the loudest moment: 0.28 (faint) .. 1
    impact_levels: tuple[float, ...]  # dB relative to the clip's loudest moment (<= 0), one per impact heard
    pitch: str | None
    pitch_hz: float | None
    pitch_deviation: float | None  # semitones from `pitch`, signed; clean: under 0.5; classes are 8.7 apart
    tonality: float  # share of energy after the onsets within a semitone of pitch_hz; clean: 0.65 .. 0.95
    material: str | None
    decay_s: float | None  # time constant of the amplitude after an impact; see MATERIAL_DECAYS for the classes
    peak: float  # largest |sample|, 0..1
    clipping: float  # fraction of samples with |sample| >= 0.99
    noise_floor: float  # dB: quietest 5 % of the clip relative to its loudest moment; clean: under -60; silence: -100

    @property
    def num_seen(self) -> int:
        return len(self.impacts_seen)

    @property
    def num_heard(self) -> int:
        return len(self.impacts_heard)


def measure_clip(clip: AVClip) -> Measurement:
    """Measure a clip. Takes about 20 ms for a Bounce clip and never raises for a valid AVClip."""
    picture, sound = measure_picture(clip.video, clip.fps), measure_sound(mono_samples(clip))
    background, background_distance = _nearest_rgb(BACKGROUNDS, picture.background_rgb)
    color, color_distance = _nearest_rgb(COLORS, picture.color_rgb)
    pitch = _nearest_ratio(PITCHES, sound.pitch_hz)
    return Measurement(
        background=background,
        background_rgb=picture.background_rgb,
        background_distance=background_distance,
        color=color,
        color_rgb=picture.color_rgb,
        color_distance=color_distance,
        size=_nearest_ratio(SIZES, picture.radius),
        radius=picture.radius,
        radius_variation=picture.radius_variation,
        visibility=picture.visibility,
        stray=picture.stray,
        track=picture.track,
        side=_side(picture),
        drift=picture.drift,
        roughness=picture.roughness,
        impacts_seen=picture.impacts,
        impact_speeds=picture.impact_speeds,
        sharpness=picture.sharpness,
        flicker=picture.flicker,
        impacts_heard=sound.impacts,
        impact_strengths=sound.impact_strengths,
        impact_levels=sound.impact_levels,
        pitch=pitch,
        pitch_hz=sound.pitch_hz,
        pitch_deviation=_deviation(sound, pitch),
        tonality=sound.tonality,
        material=_nearest_ratio(MATERIAL_DECAYS, sound.decay_s),
        decay_s=sound.decay_s,
        peak=sound.peak,
        clipping=sound.clipping,
        noise_floor=sound.noise_floor,
    )


def mono_samples(clip: AVClip) -> np.ndarray:
    """Return the clip's sound as one channel at 16 kHz, float32 (N,); N is 0 for a clip without sound."""
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


def _side(picture: PictureMeasurement) -> str | None:
    if picture.drift is None or abs(picture.drift) < MIN_DRIFT:
        return None
    return "right" if picture.drift > 0 else "left"


def _deviation(sound: SoundMeasurement, pitch: str | None) -> float | None:
    if sound.pitch_hz is None or pitch is None:
        return None
    return 12 * log2(sound.pitch_hz / PITCHES[pitch])
