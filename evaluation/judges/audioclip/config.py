"""Sizes of AudioCLIP's audio head; the defaults are the published ones."""

from __future__ import annotations

from dataclasses import dataclass

EMBED_DIM = 1024


@dataclass(frozen=True)
class AudioClipConfig:
    """The ResNeXt behind the front end, which has one size only. A smaller one is for tests."""

    stem_width: int = 64  # channels of the first convolution; a stage has 4, 8, 16 and 32 times as many
    blocks: tuple[int, ...] = (3, 4, 6, 3)  # in each of the four stages
    groups: int = 32  # of the 3x3 convolutions
    width_per_group: int = 4  # in the first stage, at a stem of 64 channels

    def __post_init__(self) -> None:
        if len(self.blocks) != 4 or min(self.stem_width, self.groups, self.width_per_group, *self.blocks) < 1:
            raise ValueError(
                f"stem_width {self.stem_width}, blocks {self.blocks}, groups {self.groups} and width_per_group "
                f"{self.width_per_group} make no ResNeXt: give four numbers of blocks, and no number below 1."
            )
        if self.stem_width * self.width_per_group < 64:
            raise ValueError(
                f"width_per_group {self.width_per_group} leaves no channel in a group at stem_width {self.stem_width}: "
                "their product must be 64 or more."
            )
