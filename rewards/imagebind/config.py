"""Sizes of an ImageBind network: the published ones as defaults, others from a `config.json` beside the weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

Modality = Literal["vision", "text", "audio", "depth", "thermal", "imu"]
MODALITIES: tuple[Modality, ...] = ("vision", "text", "audio", "depth", "thermal", "imu")
MLP_RATIO = 4
FRAMES_PER_TOKEN = 2


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """A transformer of `blocks` blocks."""

    width: int
    blocks: int
    heads: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} is {getattr(self, field.name)}: give a positive number.")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be shared by {self.heads} heads: make it a multiple of heads.")

    @property
    def mlp_width(self) -> int:
        return MLP_RATIO * self.width


@dataclass(frozen=True, kw_only=True)
class ImageConfig(TrunkConfig):
    """Square images, cut into patches side by side."""

    image_size: int = 224
    patch_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}: make it one."
            )

    @property
    def num_tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2 + 1  # the class token


@dataclass(frozen=True, kw_only=True)
class VisionConfig(ImageConfig):
    """Sizes of clips of a few frames; a token spans two frames."""

    frames_per_clip: int = FRAMES_PER_TOKEN

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames_per_clip % FRAMES_PER_TOKEN:
            raise ValueError(f"frames_per_clip {self.frames_per_clip} is odd, but a token spans two: make it even.")

    @property
    def num_tokens(self) -> int:
        return self.frames_per_clip // FRAMES_PER_TOKEN * (self.image_size // self.patch_size) ** 2 + 1


@dataclass(frozen=True, kw_only=True)
class TextConfig(TrunkConfig):
    """Ids of tokens; how many there may be fixes the number of positions."""

    vocab_size: int = 49_408
    context_length: int = 77


@dataclass(frozen=True, kw_only=True)
class AudioConfig(TrunkConfig):
    """Mel spectrograms, cut into patches that overlap."""

    mel_bins: int = 128
    mel_frames: int = 204  # of 10 ms
    patch_size: int = 16
    patch_stride: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.mel_bins, self.mel_frames) < self.patch_size:
            raise ValueError(
                f"A patch of {self.patch_size} does not fit into {self.mel_bins} mel_bins x {self.mel_frames} "
                "mel_frames: make patch_size smaller."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along (mel, time)."""
        rows, columns = (1 + (n - self.patch_size) // self.patch_stride for n in (self.mel_bins, self.mel_frames))
        return rows, columns

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1] + 1


@dataclass(frozen=True, kw_only=True)
class ImuConfig(TrunkConfig):
    """Readings of motion sensors, cut into windows of time."""

    channels: int = 6
    samples: int = 2000
    window: int = 8

    @property
    def num_tokens(self) -> int:
        return self.samples // self.window + 1


@dataclass(frozen=True, kw_only=True)
class ImageBindConfig:
    """`imagebind_huge` (docs/upstream/imagebind.md, section 1)."""

    embed_dim: int = 1024  # of every modality's embedding
    vision: VisionConfig = VisionConfig(width=1280, blocks=32, heads=16, patch_size=14)
    text: TextConfig = TextConfig(width=1024, blocks=24, heads=16)
    audio: AudioConfig = AudioConfig(width=768, blocks=12, heads=12)
    depth: ImageConfig = ImageConfig(width=384, blocks=12, heads=8)
    thermal: ImageConfig = ImageConfig(width=768, blocks=12, heads=12)
    imu: ImuConfig = ImuConfig(width=512, blocks=6, heads=8)
