"""Settings of `python -m dpo.prepare`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.storage import storage_path
from jobs.stage import setting
from model.prepare.config import PrepareOptions


@dataclass(frozen=True)
class PairSettings:
    """Settings from which rows of pairs are made; plain values, so that every process makes the same rows."""

    pairs: str
    model: str
    device: str
    dtype: str  # of the text encoder

    encoder: ClassVar[str] = "dpo.prepare.rows:PairEncoder"  # the class that makes the rows; imports torch


@dataclass(frozen=True)
class GroupSettings:
    """Settings from which rows of candidates are made; plain values as in `PairSettings`."""

    groups: str
    ground_truth: bool
    model: str
    device: str
    dtype: str  # of the text encoder

    encoder: ClassVar[str] = "dpo.prepare.group_rows:GroupEncoder"


@dataclass(frozen=True)
class PrepareConfig(PrepareOptions):
    """Settings of `python -m dpo.prepare`: pairs or groups, model with codecs and text encoder, and output folder."""

    pairs: str = setting(
        "", "folder of pairs, written by pipeline.rank, or by pipeline.convert from human labels; this or groups"
    )
    groups: str = setting(
        "", "folder of pipeline.run, whose scored candidates become groups for the objective nft; this or pairs"
    )
    ground_truth: bool = setting(False, "with groups: take real clips as candidates, in groups of 4 or more")

    def __post_init__(self) -> None:
        if bool(self.pairs) == bool(self.groups):
            raise ValueError(
                f"pairs is {self.pairs!r} and groups is {self.groups!r}: set one of them, --pairs to a folder of "
                "pairs or --groups to the folder of a run."
            )
        if self.ground_truth and not self.groups:
            raise ValueError("ground_truth is set, but pairs already name their clips: leave it out, or set groups.")
        super().__post_init__()

    def row_settings(self) -> PairSettings | GroupSettings:
        """Return the settings of the processes that make rows, with absolute paths: their folder may be another."""
        where = self.resolved_model, self.torch_device, self.dtype
        if self.groups:
            return GroupSettings(_absolute(self.groups), self.ground_truth, *where)
        return PairSettings(_absolute(self.pairs), *where)


def _absolute(folder: str) -> str:
    return str(storage_path(folder).resolve())
