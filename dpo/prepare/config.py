"""Settings of `python -m dpo.prepare`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.storage import storage_path
from jobs.stage import setting
from model.prepare.config import PrepareOptions


@dataclass(frozen=True)
class PairSettings:
    """Settings from which rows are made; plain values, so that every process makes the same rows."""

    pairs: str
    model: str
    device: str
    dtype: str  # of the text encoder

    encoder: ClassVar[str] = "dpo.prepare.rows:PairEncoder"  # the class that makes the rows; imports torch


@dataclass(frozen=True)
class PrepareConfig(PrepareOptions):
    """Settings of `python -m dpo.prepare`: pairs, model with codecs and text encoder, and output folder."""

    pairs: str = setting(
        "", "needed: folder of pairs, written by pipeline.rank, or by pipeline.convert from human labels"
    )

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("pairs is empty: set --pairs to a folder.")
        super().__post_init__()

    def row_settings(self) -> PairSettings:
        """Return the settings of the processes that make rows, with absolute paths: their folder may be another."""
        return PairSettings(str(storage_path(self.pairs).resolve()), self.resolved_model, self.torch_device, self.dtype)
