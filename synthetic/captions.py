"""Captions of Bounce scenes, and the parsing of captions back to attributes.

Captions consist of lower-case words from a closed vocabulary, separated by single blanks, without punctuation. Each
value of each attribute is one word with no other meaning, so a caption can be parsed word by word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from synthetic.scene import BACKGROUNDS, COLORS, MATERIALS, PITCHES, SIDES, SIZES, Scene

PHRASINGS = (
    "a {size} {color} ball bounces {times} on a {background} background "
    "drifting {side} with a {pitch} {material} sound",
    "on a {background} background a {size} {color} ball moves to the {side} and makes {hits} of a {pitch} {material}",
    "{hits} of a {pitch} {material} as a {size} {color} ball drifts {side} in front of a {background} wall",
    "the {color} ball is {size} and bounces {times} toward the {side} on {background} with a {pitch} {material} tone",
    "a {pitch} {material} sounds {times} while a {size} {color} ball goes {side} over a {background} background",
    "{background} background with one {size} ball colored {color} that falls and hits the floor {times} "
    "moving {side} sounding like a {pitch} {material}",
    "we see a {size} {color} ball bouncing {side} against {background} and hear a {pitch} {material} {times}",
    "the sound of a {pitch} {material} is heard {times} when the {size} {color} ball "
    "lands and drifts to the {side} on a {background} background",
)
TIMES = {1: "once", 2: "twice", 3: "three times", 4: "four times"}
HITS = {1: "a single hit", 2: "two hits", 3: "three hits", 4: "four hits"}
COUNT_WORDS = {"once": 1, "single": 1, "twice": 2, "two": 2, "three": 3, "four": 4}
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class CaptionAttributes:
    """Attributes that a caption states; None for an attribute that it does not state."""

    color: str | None = None
    size: str | None = None
    background: str | None = None
    num_impacts: int | None = None
    pitch: str | None = None
    material: str | None = None
    side: str | None = None

    @property
    def num_stated(self) -> int:
        return sum(getattr(self, field.name) is not None for field in fields(self))


def caption(scene: Scene, phrasing: int | None = None) -> str:
    """Return a caption of the scene, at most 32 words.

    `phrasing` is an index of PHRASINGS; by default, the scene's seed determines it.
    """
    template = PHRASINGS[scene.seed % len(PHRASINGS) if phrasing is None else phrasing]
    return template.format(
        color=scene.color,
        size=scene.size,
        background=scene.background,
        pitch=scene.pitch,
        material=scene.material,
        side=scene.side,
        times=TIMES[scene.num_impacts],
        hits=HITS[scene.num_impacts],
    )


def parse_caption(text: str) -> CaptionAttributes:
    """Parse the attributes that `text` states about a Bounce scene; inverse of `caption`, for any case and punctuation.

    Partial captions, for example "a red ball", are parsed too. For a text that does not mention a ball, or that uses a
    word outside the vocabulary, all fields are None. A field with two different values is None.
    """
    words = set(_WORD.findall(text.lower()))
    if "ball" not in words or not words <= _VOCABULARY:
        return CaptionAttributes()
    counts = {COUNT_WORDS[word] for word in words & COUNT_WORDS.keys()}
    return CaptionAttributes(
        color=_only(words & COLORS.keys()),
        size=_only(words & SIZES.keys()),
        background=_only(words & BACKGROUNDS.keys()),
        num_impacts=counts.pop() if len(counts) == 1 else None,
        pitch=_only(words & PITCHES.keys()),
        material=_only(words & set(MATERIALS)),
        side=_only(words & set(SIDES)),
    )


def vocabulary() -> list[str]:
    """Return all words that a caption can contain, sorted."""
    return sorted(_VOCABULARY)


def _only(found: set[str]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None


def _collect_vocabulary() -> frozenset[str]:
    values = [*COLORS, *SIZES, *BACKGROUNDS, *PITCHES, *MATERIALS, *SIDES, *TIMES.values(), *HITS.values()]
    fixed = re.sub(r"{\w+}", " ", " ".join(PHRASINGS))
    return frozenset(" ".join([*values, fixed]).split())


_VOCABULARY = _collect_vocabulary()
