"""What the network works on: one clip as video and audio latents, and its file."""

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
    """Latents of one clip, normalised per channel, and the geometry needed to decode them.

    A modality that was not generated has an empty tensor, (0,).
    """

    video: Tensor  # float32 (C, T, H, W)
    audio: Tensor  # float32 (C, T, M)
    num_frames: int
    height: int  # pixels
    width: int  # pixels
    fps: float
    num_samples: int  # audio samples of the decoded clip

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file atomically; the final name means that it is complete."""
        # One entry: safetensors writes several in random order, and the same latents must give the same bytes.
        metadata = {"geometry": json.dumps({name: getattr(self, name) for name in _GEOMETRY})}
        tensors = {"video": self.video.contiguous(), "audio": self.audio.contiguous()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> AVLatents:
        with safe_open(path, framework="pt") as file:
            geometry = json.loads(file.metadata()["geometry"])
            video, audio = file.get_tensor("video"), file.get_tensor("audio")
        return cls(video, audio, **geometry)
