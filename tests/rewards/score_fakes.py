"""Rewards that need no network, found by dotted path, and clips to score with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from media import AVClip, write_clip
from rewards import Prompt, Reward
from rewards.base import Protocol
from rewards.weights import find_weights

FPS, SAMPLE_RATE, NUM_FRAMES = 16.0, 16_000, 9
MODULE = "tests.rewards.score_fakes"


def make_clip(shade: int, size: int = 64, level: float | None = None) -> AVClip:
    """A flat grey picture and a tone whose peak is `level`, by default a thousandth of the shade."""
    num_samples = round(NUM_FRAMES / FPS * SAMPLE_RATE)
    tone = (0.001 * shade if level is None else level) * np.sin(np.arange(num_samples) * 0.2)
    video = np.full((NUM_FRAMES, size, size, 3), shade, dtype=np.uint8)
    return AVClip(video, FPS, tone[None].astype(np.float32), SAMPLE_RATE)


def write_clips(folder: Path, **shades: int) -> list[Path]:
    paths = [folder / f"{name}.mp4" for name in shades]
    for path, shade in zip(paths, shades.values(), strict=True):
        write_clip(make_clip(shade), path)
    return paths


class Shade(Reward):
    """Brightness of the picture."""

    name, version, licence = "shade", "1", "none"
    columns = ("shade",)
    higher_is_better: ClassVar[dict[str, bool]] = {"shade": True}
    needs = frozenset({"video"})

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Any]:
        import torch

        return {"shade": torch.tensor([float(clip.video.mean()) for clip in clips])}


class Peak(Reward):
    """Level of the sound, and how long the clip says it is."""

    name, version, licence = "peak", "1", "none"
    columns = ("peak", "length")
    higher_is_better: ClassVar[dict[str, bool]] = {"peak": False, "length": True}
    needs = frozenset({"audio"})

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Any]:
        import torch

        peaks = [float(np.abs(clip.audio).max()) if clip.has_audio else float("nan") for clip in clips]
        return {"peak": torch.tensor(peaks), "length": torch.tensor([clip.duration_s for clip in clips])}


class Words(Reward):
    """Length of the prompt; fails on one."""

    name, version, licence = "words", "1", "none"
    columns = ("words",)
    higher_is_better: ClassVar[dict[str, bool]] = {"words": True}
    needs = frozenset({"video", "text"})

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Any]:
        import torch

        if any(prompt.prompt == "FAIL" for prompt in prompts):
            raise ValueError("cannot read this")
        return {"words": torch.tensor([float(len(prompt.prompt.split())) for prompt in prompts])}


class Weighted(Reward):
    """The number in its weights, negative under the protocol of the release."""

    name, version, licence = "weighted", "1", "none"
    columns = ("weighted",)
    higher_is_better: ClassVar[dict[str, bool]] = {"weighted": True}
    needs = frozenset({"video"})
    published = "weighted.txt"
    protocols = ("correct", "javisbench")

    @classmethod
    def load(
        cls,
        path: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        protocol: Protocol = "correct",
    ) -> Self:
        reward = cls()
        value = float(find_weights(path, cls.name, cls.published).read_text())
        reward.value = -value if protocol == "javisbench" else value
        reward.version = cls.version_under(protocol)
        return reward

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Any]:
        import torch

        return {"weighted": torch.full((len(clips),), self.value)}
