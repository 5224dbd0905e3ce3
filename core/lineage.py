"""By what the preferences that trained a model were chosen: rewards, or people.

`lineage.json` lies in the folders of models and of training data; pairs have it in ranking.json, and tables in their
metadata. Each holds the whole history, so that none of the folders before it is needed.
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

Source = Literal["rewards", "labels"]


@dataclass(frozen=True)
class RewardUse:
    """A reward, and those of its metric columns that decided about pairs. None: the scores did not tell."""

    name: str | None
    version: str | None
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class PreferenceTraining:
    """Who chose the winners of one training's pairs; people use no rewards."""

    source: Source
    rewards: tuple[RewardUse, ...] = ()


@dataclass(frozen=True)
class Lineage:
    """The preference trainings of a model, the first one first.

    Attributes:
        is_complete: False where there may have been others, of which nothing is known.
    """

    trainings: tuple[PreferenceTraining, ...] = ()
    is_complete: bool = True

    def then(self, later: Lineage) -> Lineage:
        """This one, followed by the trainings of another."""
        return Lineage((*self.trainings, *later.trainings), self.is_complete and later.is_complete)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
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
        """The inverse of `to_dict`; nothing gives UNKNOWN.

        Raises:
            ValueError: naming `place`, where it holds something else, or what a later version of this package wrote.
        """
        if values is None:
            return UNKNOWN
        try:
            if values["version"] > FORMAT_VERSION:
                raise ValueError(f"version {values['version']} of it, this package knows {FORMAT_VERSION}: update it")
            trainings = tuple(_training(one) for one in values["trainings"])
            return Lineage(trainings, bool(values["is_complete"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{place} holds no lineage that can be read ({error}). Write it again, or delete it."
            ) from (error)


UNTRAINED = Lineage()
UNKNOWN = Lineage(is_complete=False)
LABELLED = Lineage((PreferenceTraining("labels"),))


def read_lineage(folder: Path) -> Lineage:
    """What the folder's lineage.json says; UNKNOWN without one.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / LINEAGE_NAME
    return parse_lineage(path.read_text(encoding="utf-8"), path) if path.is_file() else UNKNOWN


def write_lineage(folder: Path, lineage: Lineage) -> None:
    """Write the folder's lineage.json, unless it says so already."""
    path, text = folder / LINEAGE_NAME, json.dumps(lineage.to_dict(), indent=2) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic_write_text(path, text)


def parse_lineage(text: str | bytes | None, place: str | Path) -> Lineage:
    """A lineage from its JSON, such as a table's METADATA_KEY has it; None gives UNKNOWN. Raises as `from_dict`."""
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
