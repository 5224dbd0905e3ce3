"""Settings of `python -m dpo.construct`. Imports no torch."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.cli import config_to_dict
from dpo.construct.ranges import ShiftRange
from dpo.data.schema import MODALITIES
from dpo.signal_test.config import SignalSettings
from jobs.stage import setting
from model.prepare.config import PrepareOptions

ROW_SETTINGS = {  # settings that decide the rows, by the distortions that have them
    "model": ("shift", "regional"),
    "dtype": ("shift", "regional"),
    "distortion": ("shift", "regional"),
    "seed": ("shift", "regional"),
    "stages": ("shift",),
    "keep_onsets": ("shift",),
    "regions": ("regional",),
    "strengths": ("regional",),
    "num_inference_steps": ("regional",),
    "guidance_scale": ("regional",),
}
USERS = ROW_SETTINGS | {"signal_clips": ("shift",)}
STAGES = ("0.24-0.48", "0.16-0.32", "0.08-0.16")
STRENGTHS = (0.75, 0.8, 0.85)  # docs/upstream/constructed_negatives.md, section 2
# At a lower strength the published weight of a region, 1 + (strength - 0.75) / 0.15, is not positive.
LEAST_STRENGTH = 0.6


@dataclass(frozen=True)
class ConstructSettings:
    """Plain values that decide the content of rows: any process makes the same rows from them."""

    latents: str  # folder
    model: str
    device: str
    dtype: str
    distortion: str
    seed: int
    stages: tuple[ShiftRange, ...]
    keep_onsets: bool
    regions: tuple[str, ...]
    strengths: tuple[float, ...]
    num_inference_steps: int | None
    guidance_scale: float | None

    encoder: ClassVar[str] = "dpo.construct.rows:PairConstructor"  # the class that makes the rows; imports torch


@dataclass(frozen=True)
class ConstructConfig(PrepareOptions):
    """Settings of the command."""

    latents: str = setting(
        "",
        "needed: folder of good clips: written by model.prepare (real or rendered clips), or by dpo.prepare, whose "
        "winners are taken, each once",
    )
    distortion: Literal["shift", "regional"] = setting(
        "shift",
        "shift: the loser's sound is early or late (as SyncDPO); regional: random moving regions of the loser are "
        "generated anew by the model (LocalDPO)",
    )
    stages: list[str] = field(
        default_factory=lambda: list(STAGES),
        metadata={
            "help": "shift: sizes of the shifts in seconds, a range for each stage of the curriculum, coarse first. "
            "Each clip gives a pair per stage; dpo.train --stage_epochs trains on one stage after the other"
        },
    )
    keep_onsets: bool = setting(
        False, "shift: leave out pairs in which an onset leaves the clip, for captions that count sounds"
    )
    regions: list[str] = field(
        default_factory=lambda: list(MODALITIES),
        metadata={"help": "regional: modalities whose regions are generated anew"},
    )
    strengths: list[float] = field(
        default_factory=lambda: list(STRENGTHS),
        metadata={
            "help": "regional: shares, in (0.6, 1], of a generation's steps, one of which is drawn for each pair and "
            "decides how noisy the regions start (published 0.75 to 0.85)"
        },
    )
    num_inference_steps: int | None = setting(
        None, "regional: steps of a whole generation, the last of which are made; default: the model's"
    )
    guidance_scale: float | None = setting(None, "regional: guidance (published 6); default: the model's")
    seed: int = setting(42, "seed of the shifts, regions and noise")
    signal_clips: int = setting(
        16, "shift: pairs for the signal test, whose verdict dpo.train obeys; 0 leaves the test out"
    )
    dtype: Literal["float32", "bfloat16"] = setting("float32", "precision of the network's weights")

    def __post_init__(self) -> None:
        if not self.latents:
            raise ValueError("latents is empty: set --latents to a folder of model.prepare or dpo.prepare.")
        super().__post_init__()
        self._check_unused()
        if not self.ranges:
            raise ValueError("stages is empty: give at least one range of shifts, such as '0.08-0.32'.")
        if not self.regions or not set(self.regions) <= set(MODALITIES):
            raise ValueError(f"regions is {self.regions}: give one or both of {', '.join(MODALITIES)}.")
        if not self.strengths or not all(LEAST_STRENGTH < one <= 1 for one in self.strengths):
            raise ValueError(f"strengths is {self.strengths}: give shares above {LEAST_STRENGTH} and up to 1.")
        if self.num_inference_steps is not None and self.num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is {self.num_inference_steps}: give at least 1.")
        if self.signal_clips < 0 or self.signal_clips == 1:
            raise ValueError(f"signal_clips is {self.signal_clips}: give at least 2, for an unrelated clip, or 0.")

    @property
    def ranges(self) -> tuple[ShiftRange, ...]:
        return tuple(ShiftRange.parse(text) for text in self.stages)

    @property
    def pairs_per_clip(self) -> int:
        return len(self.stages) if self.distortion == "shift" else 1

    @property
    def recorded(self) -> dict[str, Any]:
        """The settings that decide the rows, as JSON values."""
        values = config_to_dict(self)
        return {name: values[name] for name, users in ROW_SETTINGS.items() if self.distortion in users}

    def row_settings(self) -> ConstructSettings:
        """Return the settings for the processes that make rows, with absolute paths."""
        return ConstructSettings(
            latents=str(Path(self.latents).resolve()),
            model=self.resolved_model,
            device=self.torch_device,
            dtype=self.dtype,
            distortion=self.distortion,
            seed=self.seed,
            stages=self.ranges,
            keep_onsets=self.keep_onsets,
            regions=tuple(self.regions),
            strengths=tuple(self.strengths),
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
        )

    def signal_settings(self) -> SignalSettings:
        """Return the settings of the signal test of the finished dataset."""
        return SignalSettings(self.resolved_model, self.torch_device, self.dtype, self.signal_clips)

    def _check_unused(self) -> None:
        """Raise ValueError for a setting that the distortion does not have."""
        for one in fields(self):
            users = USERS.get(one.name, (self.distortion,))
            default = one.default if one.default_factory is MISSING else one.default_factory()
            if self.distortion not in users and getattr(self, one.name) != default:
                raise ValueError(
                    f"{one.name} is {getattr(self, one.name)}, but distortion {self.distortion!r} does not use it: "
                    "leave it out (of the YAML as well)."
                )
