"""Ranges of the shifts of a curriculum's stages, in seconds and in latent steps. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"(\d*\.?\d+)-(\d*\.?\d+)")


@dataclass(frozen=True)
class ShiftRange:
    """Smallest and largest size of a shift in seconds."""

    low_s: float
    high_s: float

    @classmethod
    def parse(cls, text: str) -> ShiftRange:
        """Return the range of a text such as "0.08-0.16", or of one number.

        Raises:
            ValueError: no range, or not 0 < low <= high.
        """
        match = _RANGE.fullmatch(text if "-" in text else f"{text}-{text}")
        if match is None or not 0 < float(match[1]) <= float(match[2]):
            raise ValueError(f"stage {text!r} is no range of shifts: give seconds from small to large, as '0.08-0.16'.")
        return cls(float(match[1]), float(match[2]))

    def steps(self, step_s: float) -> tuple[int, int]:
        """Return the smallest and the largest shift in whole steps of `step_s` seconds.

        Raises:
            ValueError: the range holds no shift of a whole step.
        """
        low, high = max(1, round(self.low_s / step_s)), round(self.high_s / step_s)
        if high < low:
            raise ValueError(
                f"stage {self} is under half a step: the codec's latents are {1000 * step_s:g} ms apart, and shifts "
                "are whole steps; give larger ones."
            )
        return low, high

    def __str__(self) -> str:
        return f"{self.low_s:g}-{self.high_s:g}"
