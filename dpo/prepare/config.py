"""Settings of `python -m dpo.prepare`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.storage import storage_path
from model.prepare.config import PrepareOptions, setting


@dataclass(frozen=True)
class PairSettings:
    """What rows are made from; plain values, from which any process makes the same rows."""

    pairs: str
    model: str
    device: str
    dtype: str  # of the text encoder

    encoder: ClassVar[str] = "dpo.prepare.rows:PairEncoder"  # what makes the rows; imports torch


@dataclass(frozen=True)
class PrepareConfig(PrepareOptions):
    """Where the pairs are, whose codecs and text encoder to use, and where the training data goes."""

    pairs: str = setting(
        "", "needed: folder of pairs, written by pipeline.rank, or by pipeline.convert from labels of people"
    )

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("pairs is empty: set --pairs to a folder.")
        super().__post_init__()

    def row_settings(self) -> PairSettings:
        """For the processes that make rows, which may be in another folder."""
        return PairSettings(str(storage_path(self.pairs).resolve()), self.resolved_model, self.torch_device, self.dtype)
