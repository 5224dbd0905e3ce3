"""Sizes of an I3D network. The defaults are the published ones."""

from __future__ import annotations

from dataclasses import dataclass

NUM_CLASSES = 400  # of Kinetics-400: the logits are the feature, so every network has them
NUM_FRAMES = 24  # that are looked at in each clip
_SHRINKS = 32  # pixels of the picture per position at the end, along each side


@dataclass(frozen=True, kw_only=True)
class I3DConfig:
    """Width of the network, and size of its square input pictures.

    Raises ValueError for sizes that cannot be.
    """

    width: float = 1.0  # all channels but those in and out are multiplied by it
    image_size: int = 224  # pixels, square

    def __post_init__(self) -> None:
        if not 0 < self.width <= 1:
            raise ValueError(f"width is {self.width}: give a part of the published width, above 0 and at most 1.")
        if self.image_size < _SHRINKS:
            raise ValueError(f"image_size is {self.image_size}: give at least {_SHRINKS} pixels.")

    def channels(self, published: int) -> int:
        return max(1, round(self.width * published))
