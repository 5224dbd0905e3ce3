"""Verifiable rewards of the Bounce world: measured properties of a clip, compared with its caption.

Every column is continuous, so that ties are rare, and is a function of one clip and one prompt. Some parts of the
ranges are never reached: the scores are for comparison and are no probabilities.

column                  range   meaning
visual_quality          [0, 1]  sharp edges, a background without flicker and stray objects, a visible ball
motion_quality          [0, 1]  one rigid ball in free fall that strikes the floor and never gains speed
text_alignment          [0, 1]  geometric mean of the agreements behind ib_tv: one wrong attribute weighs heavily
audio_quality           [0, 1]  mean of the next four columns
content_enjoyment       [0, 1]  tonality: share of the sound that is one clear pitch
content_usefulness      [0, 1]  strikes that are louder than the sound between them
production_complexity   [0, 1]  number of strikes, weighted by their strength
production_quality      [0, 1]  no clipping, a low noise floor, loud enough to hear
ib_tv                   [0, 1]  mean agreement of caption and picture: colour, background, size, side, number seen
ib_ta                   [0, 1]  mean agreement of caption and sound: pitch, material, number heard
ib_av                   [0, 1]  impacts seen and heard: F-score of the matches, order of loudness
desync                  [0, 2]  seconds: mean absolute offset of the matched impacts; 2.0 if nothing matches

Undefined (NaN) are text columns for a caption that states none of their attributes, and sound columns for a clip
without an audio track. A silent track is defined and scores low.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rewards.base import Prompt, Reward
from rewards.metrics import HIGHER_IS_BETTER, METRIC_COLUMNS
from synthetic.captions import CaptionAttributes, parse_caption
from synthetic.impacts import desync, impact_agreement
from synthetic.measure import MATERIAL_DECAYS, Measurement, measure_clip
from synthetic.scene import BACKGROUNDS, COLORS, FLOOR_Y, PITCHES, SIZES

if TYPE_CHECKING:
    from torch import Tensor

    from media import AVClip

# Distance from the stated value at which the agreement is 1 / e.
COLOR_SCALE = 80.0  # RGB distance; two colours of the world are at least 110 apart
SIZE_SCALE = 0.25  # of the logarithm of the radius; neighbouring sizes are 0.4 apart
PITCH_SCALE = 4.0  # semitones; neighbouring pitches are 8.7 apart
DECAY_SCALE = 0.5  # of the logarithm of the decay; neighbouring materials are 1.2 apart
COUNT_SCALE = 1.0
SIDE_SCALE = 4.0  # pixels of drift over the clip; balls of the world drift at least 16

_AUDIO_COLUMNS = (
    "audio_quality",
    "content_enjoyment",
    "content_usefulness",
    "production_complexity",
    "production_quality",
)


class VerifiableReward(Reward):
    """Reward with every metric column of the toolkit, computed from measurements of pixels and samples; no weights."""

    name = "verifiable"
    version = "1"
    columns = METRIC_COLUMNS
    higher_is_better: ClassVar[dict[str, bool]] = HIGHER_IS_BETTER
    needs = frozenset({"video", "audio", "text"})
    licence = "as this project"

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """Return one float32 tensor (B,) per column, in the ranges given in the module's docstring."""
        import torch

        rows = [score_clip(clip, prompt) for clip, prompt in zip(clips, prompts, strict=True)]
        return {column: torch.tensor([row[column] for row in rows], dtype=torch.float32) for column in self.columns}


def score_clip(clip: AVClip, prompt: Prompt) -> dict[str, float]:
    """Return all columns for one clip; NaN for an undefined column."""
    found = measure_clip(clip)
    stated = parse_caption(prompt.prompt)
    stated_sound = parse_caption(prompt.audio_prompt) if prompt.audio_prompt else stated
    seen = picture_agreements(found, stated)
    heard = sound_agreements(found, stated_sound) if clip.has_audio else []
    return {
        "visual_quality": visual_quality(found),
        "motion_quality": motion_quality(found, clip.fps),
        "text_alignment": float(np.exp(np.mean(np.log(np.maximum(seen, 1e-3))))) if seen else math.nan,
        **(audio_axes(found) if clip.has_audio else dict.fromkeys(_AUDIO_COLUMNS, math.nan)),
        "ib_tv": float(np.mean(seen)) if seen else math.nan,
        "ib_ta": float(np.mean(heard)) if heard else math.nan,
        "ib_av": _agreement(found) if clip.has_audio else math.nan,
        "desync": desync(found.impacts_seen, found.impacts_heard) if clip.has_audio else math.nan,
    }


def picture_agreements(found: Measurement, stated: CaptionAttributes) -> list[float]:
    """Return the agreement of the picture with each visual attribute that the caption states, each in [0, 1]."""
    agreements = []
    if stated.color is not None:
        agreements.append(_near_color(found.color_rgb, COLORS[stated.color]))
    if stated.background is not None:
        agreements.append(_near_color(found.background_rgb, BACKGROUNDS[stated.background]))
    if stated.size is not None:
        agreements.append(_near(_ratio(found.radius, SIZES[stated.size]), SIZE_SCALE))
    if stated.side is not None:
        towards = 0.0 if found.drift is None else found.drift * (1 if stated.side == "right" else -1)
        agreements.append(_logistic(towards / SIDE_SCALE))
    if stated.num_impacts is not None:
        agreements.append(_near(len(found.impacts_seen) - stated.num_impacts, COUNT_SCALE))
    return agreements


def sound_agreements(found: Measurement, stated: CaptionAttributes) -> list[float]:
    """Return the agreement of the sound with each audible attribute that the caption states, each in [0, 1]."""
    agreements = []
    if stated.pitch is not None:
        octaves = _ratio(found.pitch_hz, PITCHES[stated.pitch])
        agreements.append(_near(None if octaves is None else 12 / math.log(2) * octaves, PITCH_SCALE))
    if stated.material is not None:
        agreements.append(_near(_ratio(found.decay_s, MATERIAL_DECAYS[stated.material]), DECAY_SCALE))
    if stated.num_impacts is not None:
        agreements.append(_near(len(found.impacts_heard) - stated.num_impacts, COUNT_SCALE))
    return agreements


def visual_quality(found: Measurement) -> float:
    """Return the mean of edge sharpness, steadiness of the background, and visibility of the ball without strays."""
    return float(
        np.mean(
            [
                found.sharpness / (found.sharpness + 0.3),
                1 / (1 + found.flicker / 2),  # flicker: mean change of the background between frames, 0..255
                found.visibility / (1 + found.stray),  # stray: foreground area outside the ball, in ball areas
            ]
        )
    )


def motion_quality(found: Measurement, fps: float) -> float:
    """Return the mean of smooth flight, rigid shape, downward acceleration and impacts on the floor.

    The mean is multiplied by the ball's visibility.
    """
    parts = [
        1 / (1 + 2 * found.roughness),  # deviation from a parabola, pixels per frame squared
        1 / (1 + 10 * found.radius_variation),
        _falling(found.track),
        _striking(found, fps),
    ]
    return float(np.mean(parts)) * found.visibility


def audio_axes(found: Measurement) -> dict[str, float]:
    """Return audio_quality and the four axes of which it is the mean."""
    strengths = np.asarray(found.impact_strengths, dtype=float)
    audible = found.peak / (found.peak + 0.01)
    # Effective number of strikes: equal strikes count fully, weak ones less.
    events = float(strengths.sum() ** 2 / (strengths**2).sum()) if strengths.any() else 0.0
    clean = math.exp(-50 * found.clipping) * _logistic((-30 - found.noise_floor) / 10)
    axes = {
        "content_enjoyment": found.tonality * audible,
        "content_usefulness": float(strengths.mean()) * audible if len(strengths) else 0.0,
        "production_complexity": events / (events + 1) * audible,
        "production_quality": clean * audible,
    }
    return {"audio_quality": float(np.mean(list(axes.values()))), **axes}


def _agreement(found: Measurement) -> float:
    return impact_agreement(found.impacts_seen, found.impact_speeds, found.impacts_heard, found.impact_levels)


def _falling(track: np.ndarray) -> float:
    """Return a score in [0, 1) for the downward acceleration of a track (T, 2).

    The median over frames is used, because a bouncing ball is in flight in most frames.
    """
    bends = np.diff(track[:, 1], 2)
    bends = bends[np.isfinite(bends)]
    gravity = max(float(np.median(bends)), 0.0) if len(bends) else 0.0  # pixels per frame squared
    return gravity / (gravity + 0.05)


def _striking(found: Measurement, fps: float) -> float:
    """Return a score in [0, 1] for impacts close to the floor from which the ball does not gain speed."""
    if not found.impacts_seen or found.radius is None:
        return 0.0
    heights = []
    for time, speed in zip(found.impacts_seen, found.impact_speeds, strict=True):
        frame = min(int(time * fps), len(found.track) - 1)
        fallen = speed * (time - frame / fps)  # distance since the last frame before the impact
        heights.append(FLOOR_Y - found.radius - found.track[frame, 1] - fallen)
    speeds = np.asarray(found.impact_speeds)
    gains = np.maximum(np.diff(np.log(np.maximum(speeds, 1.0))), 0.0)
    return math.exp(-abs(float(np.nanmedian(heights))) / 8 - float(gains.sum()))


def _near_color(seen: Sequence[float] | None, stated: Sequence[float]) -> float:
    return _near(None if seen is None else float(np.linalg.norm(np.subtract(seen, stated))), COLOR_SCALE)


def _near(distance: float | None, scale: float) -> float:
    """Return exp(-|distance| / scale): 1 at distance 0, 1 / e at `scale`; 0 for None, when nothing was found."""
    return 0.0 if distance is None else math.exp(-abs(distance) / scale)


def _ratio(found: float | None, stated: float) -> float | None:
    return math.log(found / stated) if found else None


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))
