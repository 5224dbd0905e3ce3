"""Settings of `python -m dpo.signal_test`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jobs.stage import setting

NUM_DRAWS = 8


@dataclass(frozen=True)
class SignalSettings:
    """Settings that decide the numbers of a test."""

    model: str
    device: str = "cpu"
    dtype: str = "float32"
    num_clips: int = 16
    num_draws: int = NUM_DRAWS
    shift_scale: float = 5.0
    seed: int = 42


@dataclass(frozen=True)
class SignalConfig:
    """Settings of the command."""

    model: str = setting("", "needed: model whose errors are measured: 'tiny', a model folder or an adapter folder")
    dataset: str | None = setting(
        None, "folder of dpo.construct; its own pairs are tested, and the verdict that dpo.train obeys is replaced"
    )
    latents: str | None = setting(
        None, "instead of dataset: folder of clips of model.prepare or dpo.prepare, whose sound is shifted"
    )
    shifts: list[float] = field(
        default_factory=lambda: [0.16, 0.32, -0.16],
        metadata={"help": "with latents: shifts of the sound in seconds, rounded to whole steps of the codec; 0 is 0"},
    )
    output: str | None = setting(None, "with latents: needed, folder for signal.json and signal.csv")
    clips: int = setting(16, "number of clips, or of pairs of the dataset, spread evenly over it")
    draws: int = setting(NUM_DRAWS, "draws of noise and timestep per clip, those of training")
    shift_scale: float = setting(5.0, "timestep shift of the draws, as in training (published 5.0)")
    seed: int = setting(42, "seed of the draws")
    device: str = setting("cpu", "torch device of the network")
    dtype: Literal["float32", "bfloat16"] = setting("float32", "precision of the network's weights")

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model is empty: set --model.")
        if bool(self.dataset) == bool(self.latents):
            raise ValueError(
                f"dataset is {self.dataset!r} and latents {self.latents!r}: give one of them, pairs or clips."
            )
        if bool(self.output) != bool(self.latents):
            raise ValueError(
                f"output is {self.output!r}: set it with latents; the test of a dataset is kept in its own folder."
            )
        if self.clips < 2 or self.draws < 1:
            raise ValueError(f"clips is {self.clips} and draws {self.draws}: give at least 2 clips and 1 draw.")
        if not self.shift_scale > 0:
            raise ValueError(f"shift_scale is {self.shift_scale}, but timesteps need a positive one.")

    @property
    def settings(self) -> SignalSettings:
        return SignalSettings(self.model, self.device, self.dtype, self.clips, self.draws, self.shift_scale, self.seed)
