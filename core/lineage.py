"""The lineage of a model: the rewards or people that chose the preferences of each of its trainings.

Folders of models and of training data hold it in `lineage.json`, folders of pairs in ranking.json, and tables in their
metadata. Each copy holds the whole history, so that no earlier folder is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from core.atomic import atomic_write_text

LINEAGE_NAME = "lineage.json"
LINEAGE_KEY = "lineage"  # of ranking.json
METADATA_KEY = "avdpo.lineage"  # of a table's Arrow metadata
FORMAT_VERSION = 1

Source = Literal["rewards", "labels", "rules"]


@dataclass(frozen=True)
class RewardUse:
    """A reward, and those of its metric columns that selected pairs. None: the scores table does not record it."""

    name: str | None
    version: str | None
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class PreferenceTraining:
    """The source of one training's preferences; labels of people, and losers made by rule, have no rewards."""

    source: Source
    rewards: tuple[RewardUse, ...] = ()


@dataclass(frozen=True)
class Lineage:
    """The preference trainings of a model, the first one first.

    Attributes:
        is_complete: False where there may have been further trainings without a record.
    """

    trainings: tuple[PreferenceTraining, ...] = ()
    is_complete: bool = True

    def then(self, later: Lineage) -> Lineage:
        """Return this lineage followed by the trainings of another."""
        return Lineage((*self.trainings, *later.trainings), self.is_complete and later.is_complete)

    def to_dict(self) -> dict[str, Any]:
        """Return the lineage as JSON values."""
        trainings = [
            {
                "source": training.source,
                "rewards": [
                    {"name": use.name, "version": use.version, "metrics": list(use.metrics)} for use in training.rewards
                ],
            }
            for training in self.trainings
        ]
        return {"version": FORMAT_VERSION, "is_complete": self.is_complete, "trainings": trainings}

    @staticmethod
    def from_dict(values: Mapping[str, Any] | None, place: str | Path) -> Lineage:
        """Return the lineage that `to_dict` wrote; UNKNOWN for None.

        Raises:
            ValueError: `place` (named in the message) holds something else, or the form of a later version.
        """
        if values is None:
            return UNKNOWN
        try:
            if values["version"] > FORMAT_VERSION:
                raise ValueError(
                    f"version {values['version']} is newer than {FORMAT_VERSION}, which this package reads: update it"
                )
            trainings = tuple(_training(one) for one in values["trainings"])
            return Lineage(trainings, bool(values["is_complete"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{place} holds no lineage that can be read ({error}). Write it again, or delete it."
            ) from (error)


UNTRAINED = Lineage()
UNKNOWN = Lineage(is_complete=False)
LABELLED = Lineage((PreferenceTraining("labels"),))
CONSTRUCTED = Lineage((PreferenceTraining("rules"),))


def read_lineage(folder: Path) -> Lineage:
    """Read the folder's lineage.json; UNKNOWN without one.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / LINEAGE_NAME
    return parse_lineage(path.read_text(encoding="utf-8"), path) if path.is_file() else UNKNOWN


def write_lineage(folder: Path, lineage: Lineage) -> None:
    """Write the folder's lineage.json, unless its content is the same already."""
    path, text = folder / LINEAGE_NAME, json.dumps(lineage.to_dict(), indent=2) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic_write_text(path, text)


def parse_lineage(text: str | bytes | None, place: str | Path) -> Lineage:
    """Return a lineage from its JSON text, such as a table's METADATA_KEY; UNKNOWN for None. Raises as `from_dict`."""
    if text is None:
        return UNKNOWN
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"{place} holds no lineage that can be read ({error}). Write it again, or delete it."
        ) from error
    return Lineage.from_dict(values, place)


def _training(values: Mapping[str, Any]) -> PreferenceTraining:
    if values["source"] not in get_args(Source):
        raise ValueError(f"source {values['source']!r}")
    uses = [RewardUse(use["name"], use["version"], tuple(use["metrics"])) for use in values["rewards"]]
    return PreferenceTraining(values["source"], tuple(uses))
