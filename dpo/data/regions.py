"""The regions in which the members of a pair differ, read from a dataset of `dpo.construct --distortion regional`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpo.data.constructed_schema import MASKS, STRENGTH


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of a pair's loser that were generated anew.

    Attributes:
        masks: modality -> 1 where it was; video (1, T, H, W), audio (1, T, M). Modalities without regions are absent.
        strength: share of the sampling steps by which they were generated.
    """

    masks: dict[str, Tensor]
    strength: float


def read_regions(row: Mapping[str, Any]) -> Regions | None:
    """Return the regions of a dataset's row with numpy columns; None if the dataset has none."""
    if STRENGTH not in row:
        return None
    masks = {}
    for name, column in MASKS.items():
        if len(row[column]):
            size = tuple(int(one) for one in row[f"{name}_latents_shape"][1:])
            masks[name] = torch.from_numpy(np.asarray(row[column], dtype=np.float32).reshape(1, *size))
    return Regions(masks, float(row[STRENGTH]))


def stack_regions(regions: Sequence[Regions | None]) -> dict[str, Any]:
    """Return the part of a batch that describes regions, empty without any.

    `masks` is modality -> (B, 1, ...), `strength` (B,).
    """
    found = [one for one in regions if one is not None]
    if not found:
        return {}
    assert len(found) == len(regions), "a dataset has regions in all rows or in none"
    masks = {name: torch.stack([one.masks[name] for one in found]) for name in found[0].masks}
    return {"masks": masks, "strength": torch.tensor([one.strength for one in found])}


def require_regions(columns: Collection[str], source: str) -> None:
    """Raise ValueError if a dataset with these columns has no regions."""
    if STRENGTH not in columns:
        raise ValueError(
            f"region_weight needs regions, but {source} has no masks: make its pairs with `python -m dpo.construct "
            "--distortion regional`, or set region_weight 0."
        )
