"""Faults of collected data in Bounce clips: `python -m synthetic.make --quality mixed`.

A model trained on clips of which half have a fault, under captions that do not mention it, has room for alignment, and
the model trained on clean clips is its exact ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from media import AVClip
from synthetic.corrupt import MOTION, PICTURE, SOUND, WEAKEST, Corruption, shift_sound

NO_FAULT = "none"
FAULTY_SHARE = 0.5
SHIFT = "shift"
SHIFT_S = (0.16, 0.4)  # smallest and largest shift of the sound in seconds, early or late
# Groups of faults with their shares among the faulty clips.
GROUPS: dict[str, dict[str, Corruption]] = {SHIFT: {}, "sound": SOUND, "picture": PICTURE, "motion": MOTION}
SHARES = (0.30, 0.25, 0.25, 0.20)
_FAULT, _CORRUPTION = 1, 2  # streams of random numbers, independent of those that draw the scene


@dataclass(frozen=True)
class Fault:
    """A fault of a clip.

    Attributes:
        group: "shift", "sound", "picture", "motion", or "none".
        kind: name of the corruption in `synthetic.corrupt`, "shift", or "none".
        strength: seconds by which the sound is late (negative: early) for "shift", else a strength in [0.3, 1]; 0 for
            "none".
    """

    group: str
    kind: str
    strength: float


def draw_fault(seed: int) -> Fault:
    """Return the fault that belongs to a scene's seed; about half of all seeds have none."""
    rng = np.random.default_rng([seed, _FAULT])
    if rng.random() >= FAULTY_SHARE:
        return Fault(NO_FAULT, NO_FAULT, 0.0)
    group = str(rng.choice(list(GROUPS), p=SHARES))
    if group == SHIFT:
        return Fault(SHIFT, SHIFT, float(rng.choice([-1.0, 1.0]) * rng.uniform(*SHIFT_S)))
    kind = str(rng.choice(list(GROUPS[group])))
    return Fault(group, kind, float(rng.uniform(WEAKEST, 1)))


def spoil(clip: AVClip, seed: int) -> AVClip:
    """Return the clip with the fault of its scene's seed."""
    fault = draw_fault(seed)
    if fault.group == NO_FAULT:
        return clip
    if fault.group == SHIFT:
        return shift_sound(clip, fault.strength)
    return GROUPS[fault.group][fault.kind](clip, fault.strength, np.random.default_rng([seed, _CORRUPTION]))
