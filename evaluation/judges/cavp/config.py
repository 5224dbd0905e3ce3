"""Sizes of a CAVP network: the published ones as defaults, others from a `config.json` beside the weights."""

from __future__ import annotations

from dataclasses import dataclass

NUM_STAGES = 4


@dataclass(frozen=True, kw_only=True)
class CavpConfig:
    """Sizes of the network. Raises ValueError for impossible ones."""

    embed_dim: int = 512
    image_size: int = 224  # pixels, square
    frames_at_once: int = 40  # frames in a block; a frame's embedding depends on its own block only
    video_width: int = 64  # channels of the first layer
    video_blocks: tuple[int, ...] = (3, 4, 6, 3)  # of each stage of the residual network
    audio_width: int = 64  # channels of the first layer

    def __post_init__(self) -> None:
        if len(self.video_blocks) != NUM_STAGES:
            raise ValueError(f"video_blocks is {self.video_blocks}: give {NUM_STAGES} numbers, one for each stage.")
        sizes = (self.embed_dim, self.image_size, self.frames_at_once, self.video_width, self.audio_width)
        if min(*sizes, *self.video_blocks) < 1:
            raise ValueError(f"{self} has a size below 1: give positive numbers.")

    @property
    def video_features(self) -> int:
        return 4 * self.video_width * 2 ** (NUM_STAGES - 1)
