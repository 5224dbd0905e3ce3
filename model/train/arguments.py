"""Settings of flow-matching training (stages 1 and 2), with the published defaults.

Source: docs/upstream/training.md, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from transformers import TrainingArguments

from model.data.latent_schema import MODALITIES
from model.train.settings import FlowMatchingSettings, JointTrainingSettings


@dataclass
class JointTrainingArguments(JointTrainingSettings, TrainingArguments):  # type: ignore[misc]  # report_to is str alone
    """`transformers.TrainingArguments` with the settings that flow-matching and preference training share."""

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise ValueError("output_dir is empty, so there is nowhere to put the model: set --output_dir FOLDER.")
        bf16 = self.bf16
        if self.dry_run:
            self.bf16 = False  # transformers refuses bf16 without a GPU, and a plan needs none
        super().__post_init__()
        self.bf16 = bf16
        # A loss of NaN must stop the run; transformers would log the running mean in its place.
        self.logging_nan_inf_filter = False
        if not 0 <= self.text_dropout < 1:
            raise ValueError(f"text_dropout is {self.text_dropout}, which is no chance in [0, 1): published is 0.1.")
        if not self.shift_scale > 0:
            raise ValueError(f"shift_scale is {self.shift_scale}: timesteps need a positive one; published is 5.0.")
        for name, weight in self.modality_weights.items():
            if not weight >= 0:
                raise ValueError(f"{name}_weight is {weight}, which would train away from the data: give >= 0.")
        if not any(self.modality_weights.values()):
            raise ValueError("video_weight and audio_weight are both 0, so nothing would train: raise one of them.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}: give a value in [0, 1); published is 0.99, 0 is off.")
        if self.tokens_per_batch is not None and self.tokens_per_batch < 1:
            raise ValueError(f"tokens_per_batch is {self.tokens_per_batch}: give at least the tokens of one clip.")

    @property
    def modality_weights(self) -> dict[str, float]:
        return {name: getattr(self, f"{name}_weight") for name in MODALITIES}


@dataclass
class FlowMatchingConfig(FlowMatchingSettings, JointTrainingArguments):  # type: ignore[misc]
    """Arguments of `FlowMatchingTrainer`."""


def resolved_settings(args: TrainingArguments) -> dict[str, Any]:
    """Return this project's settings and all that differ from `TrainingArguments`' defaults, as plain JSON values.

    Settings with a default of this project's own are always among them: reading back would else give that default.
    """
    values = args.to_dict() | {"report_to": next(iter(args.report_to or ()), "none")}
    # Making arguments resets accelerate's process state: other devices here would separate the processes.
    same = TrainingArguments(report_to="none", use_cpu=args.use_cpu, ddp_backend=args.ddp_backend)
    own = {
        "output_dir": None,
        "report_to": "none",
        "use_cpu": False,
        "ddp_backend": None,
        "dataloader_pin_memory": True,
    }
    theirs = {field.name: field.default for field in fields(TrainingArguments)}
    changed = {field.name for field in fields(args) if field.default != theirs.get(field.name)}
    defaults = {name: value for name, value in (same.to_dict() | own).items() if name not in changed}
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
