"""Encoders that kill their process, for tests of the worker pool."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from model.prepare.parts import Parts

LAST_ROW = 3


@dataclass(frozen=True)
class FragileSettings:
    """Settings of `FragileEncoder`."""

    dies_at_start: bool = False
    mistake: str = ""

    encoder: ClassVar[str] = "tests.model.prepare.fragile:FragileEncoder"


class FragileEncoder:
    """Encoder whose process exits on `LAST_ROW`, or before the first row; every other row becomes a failure."""

    def __init__(self, settings: FragileSettings) -> None:
        self.settings = settings

    def write_part(
        self,
        parts: Parts,
        start: int,
        given_up: Collection[int] = (),
        progress: Callable[[int], Any] = lambda _: None,
    ) -> None:
        if self.settings.mistake:
            raise ValueError(self.settings.mistake)
        if self.settings.dies_at_start:
            os._exit(1)
        parts.make(start, self._encode, lambda row: [failure(row, "given up")], given_up, progress)

    def _encode(self, row: int) -> list[dict[str, str]]:
        if row == LAST_ROW:
            os._exit(1)
        return [failure(row, "fine")]


def failure(row: int, reason: str) -> dict[str, str]:
    return {"clip_id": str(row), "path": "", "reason": reason}
