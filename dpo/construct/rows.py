"""Making of constructed pairs as rows of a training dataset, winner by winner."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file

from core.atomic import atomic_path, atomic_write_text
from dpo.construct.config import ConstructSettings
from dpo.construct.regional import RegionalLosers
from dpo.construct.shift import ShiftLosers
from dpo.construct.winners import Winner, Winners
from dpo.data.schema import ENCODERS_NAME, NEGATIVE_TEXT_NAME
from model.javisdit.pipeline import JointAVPipeline
from model.javisdit.weights.folders import encoders_identity
from model.prepare.parts import DIED, Parts, Row
from model.prepare.rows import not_finite


class Losers(Protocol):
    """Interface of a distortion."""

    def rows(self, winner: Winner) -> list[Row]:
        """Return the pairs of a winner, or a failure for each that is left out."""

    def failures(self, winner: Winner, reason: str) -> list[Row]:
        """Return a failure for each pair of a winner."""


class PairConstructor:
    """Makes parts of the training dataset. Clips and model are read when the first part is made."""

    def __init__(self, settings: ConstructSettings) -> None:
        self.settings = settings
        self._losers: Losers | None = None

    def write_part(
        self,
        parts: Parts,
        start: int,
        given_up: Collection[int] = (),
        progress: Callable[[int], Any] = lambda _: None,
    ) -> None:
        """Make the pairs of some winners; a pair does not depend on the others.

        Args:
            given_up: winners at which processes have crashed; their pairs are recorded as failures.

        Raises:
            ValueError: if the model cannot be used, or a stage is shorter than the codec's steps.
        """
        self._write_records(parts.folder)
        losers = self._losers = self._losers or self._make_losers(parts.folder)
        parts.make(
            start,
            lambda row: self.rows(losers, self.winners[row]),
            lambda row: losers.failures(self.winners[row], DIED),
            given_up,
            progress,
        )

    def rows(self, losers: Losers, winner: Winner) -> list[Row]:
        """Return the pairs of a winner, or the reasons why there are none."""
        lacking = [name for name, latents in winner.latents.items() if not latents.size]
        if lacking:
            return losers.failures(winner, f"the clip has no {lacking[0]} latents")
        made = losers.rows(winner)
        broken = next(filter(None, (not_finite(row) for row in made if "reason" not in row)), None)
        return losers.failures(winner, f"its {broken} are not finite in float16") if broken else made

    @cached_property
    def winners(self) -> Winners:
        return Winners(Path(self.settings.latents))

    def _make_losers(self, folder: Path) -> Losers:
        dtype = getattr(torch, self.settings.dtype)
        pipeline = JointAVPipeline.from_pretrained(self.settings.model, self.settings.device, dtype)
        if self.settings.distortion == "shift":
            return ShiftLosers(self.settings, pipeline, folder)
        return RegionalLosers(self.settings, pipeline, load_file(folder / NEGATIVE_TEXT_NAME)["embeds"].float())

    def _write_records(self, folder: Path) -> None:
        """Write the negative prompt and the identity of the encoders beside the rows, unless they exist."""
        negative = folder / NEGATIVE_TEXT_NAME
        if not negative.is_file():
            with atomic_path(negative) as path:
                path.write_bytes((self.winners.folder / NEGATIVE_TEXT_NAME).read_bytes())
        encoders, model = folder / ENCODERS_NAME, self.settings.model
        if not encoders.is_file():
            atomic_write_text(encoders, json.dumps({"model": model, "identity": encoders_identity(model)}) + "\n")
