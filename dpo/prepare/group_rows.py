"""Encoding of scored candidates as rows of the training dataset, group by group."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from core.storage import storage_path
from dpo.data.groups import ORIGIN, CandidateRow, Groups, read_groups
from dpo.data.pairs import GEOMETRY
from dpo.data.schema import MODALITIES, REWARDS_NAME
from dpo.prepare.candidates import SHAPE_NAMES, shape_of
from dpo.prepare.config import GroupSettings
from dpo.prepare.encoder import PromptEncoder, write_once
from media.clip import MediaError
from model.javisdit.codecs.latents import AVLatents
from model.prepare.parts import DIED, Row
from model.prepare.rows import flat, not_finite, text_columns

_KEPT = ("candidate_id", "prompt_id", "prompt", "is_ground_truth", "seed", *ORIGIN)


class GroupEncoder(PromptEncoder):
    """Makes parts of a dataset of candidates."""

    def __init__(self, settings: GroupSettings) -> None:
        super().__init__(settings.model, settings.device, settings.dtype)
        self._run = storage_path(settings.groups)
        self._ground_truth = settings.ground_truth

    def rows(self, prompt: int) -> list[Row]:
        """Return the rows of a group: its candidates, encoded, or the reasons why they could not be.

        Candidates with another shape than most of the group cannot share its noise, and a single one has nothing to
        compare with: they become failures.
        """
        group = self._groups.groups[prompt]
        found = _same_shape(self._latents(group))
        texts: dict[str, Tensor] = {}  # one, unless the candidates of a prompt have different texts
        rows = []
        for candidate, latents in zip(group, found, strict=True):
            if isinstance(latents, str):
                rows.append(_failure(candidate, latents))
                continue
            if candidate["prompt"] not in texts:
                texts[candidate["prompt"]] = self.text(candidate["prompt"])
            rows.append(self._row(candidate, latents, texts[candidate["prompt"]]))
        return _without_single(rows)

    def give_up(self, prompt: int) -> list[Row]:
        return [_failure(candidate, DIED) for candidate in self._groups.groups[prompt]]

    def write_records(self, folder: Path) -> None:
        super().write_records(folder)
        rewards = {name: asdict(reward) for name, reward in self._groups.rewards.items()}
        write_once(folder / REWARDS_NAME, json.dumps(rewards, indent=2) + "\n")

    @cached_property
    def _groups(self) -> Groups:
        return read_groups(self._run, self._ground_truth)

    def _latents(self, group: list[CandidateRow]) -> list[AVLatents | str]:
        """Return the latents of each candidate, or the reason why it has none."""
        latents_of = self.candidates(self._run / "candidates")
        found: list[AVLatents | str] = []
        for candidate in group:
            try:
                found.append(latents_of(candidate))
            except MediaError as error:
                found.append(str(error))
        return found

    def _row(self, candidate: CandidateRow, latents: AVLatents, text: Tensor) -> Row:
        row: Row = {name: candidate[name] for name in _KEPT} | text_columns(text)
        for name in MODALITIES:
            row[f"{name}_latents"] = flat(getattr(latents, name))
            row[f"{name}_latents_shape"] = list(getattr(latents, name).shape)
        row |= {name: getattr(latents, name) for name in GEOMETRY} | self._scores(candidate)
        broken = not_finite(row)
        return _failure(candidate, f"its {broken} are not finite in float16") if broken else row

    def _scores(self, candidate: Mapping[str, Any]) -> dict[str, float]:
        values = {name: candidate[name] for name in self._groups.rewards}
        return {name: math.nan if value is None else float(value) for name, value in values.items()}


def _same_shape(found: list[AVLatents | str]) -> list[AVLatents | str]:
    """Replace latents of another shape than most of the group by a reason."""
    shapes = [None if isinstance(latents, str) else shape_of(latents) for latents in found]
    counts = Counter(shape for shape in shapes if shape is not None)
    if not counts:
        return found
    common = counts.most_common(1)[0][0]  # the first one of equally many
    return [
        _other_shape(shape, common) if shape not in (None, common) else latents
        for shape, latents in zip(shapes, found, strict=True)
    ]


def _other_shape(shape: tuple[Any, ...] | None, common: tuple[Any, ...]) -> str:
    assert shape is not None
    name, one, other = next(values for values in zip(SHAPE_NAMES, shape, common, strict=True) if values[1] != values[2])
    return f"it has {name} {one}, most of its group {other}; noise could not be shared. Sample the group in one size"


def _without_single(rows: list[Row]) -> list[Row]:
    """Turn the only usable candidate of a group into a failure."""
    usable = [row for row in rows if "reason" not in row]
    if len(usable) != 1:
        return rows
    reason = "it is the only usable candidate of its prompt, which leaves nothing to compare it with"
    return [_failure(row, reason) if row is usable[0] else row for row in rows]


def _failure(candidate: Mapping[str, Any], reason: str) -> Row:
    return {"candidate_id": candidate["candidate_id"], "prompt_id": candidate["prompt_id"], "reason": reason}
