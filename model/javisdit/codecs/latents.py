"""The latents of one clip, video and audio, on which the network works, and their file format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.atomic import atomic_path

_GEOMETRY = ("num_frames", "height", "width", "fps", "num_samples")


@dataclass(frozen=True, eq=False)
class AVLatents:
    """Latents of one clip, normalised per channel, with the geometry needed to decode them.

    A modality that was not generated has an empty tensor of shape (0,).
    """

    video: Tensor  # float32 (C, T, H, W)
    audio: Tensor  # float32 (C, T, M)
    num_frames: int
    height: int  # pixels
    width: int  # pixels
    fps: float
    num_samples: int  # audio samples of the decoded clip

    def save(self, path: str | Path) -> None:
        """Write a safetensors file atomically: a file with its final name is complete."""
        # One metadata entry: safetensors writes several in random order, and equal latents must give equal bytes.
        metadata = {"geometry": json.dumps({name: getattr(self, name) for name in _GEOMETRY})}
        tensors = {"video": self.video.contiguous(), "audio": self.audio.contiguous()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> AVLatents:
        """Read a file written by `save`."""
        with safe_open(path, framework="pt") as file:
            geometry = json.loads(file.metadata()["geometry"])
            video, audio = file.get_tensor("video"), file.get_tensor("audio")
        return cls(video, audio, **geometry)
