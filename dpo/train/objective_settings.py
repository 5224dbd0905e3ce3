"""Settings that all objectives of preference training share; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.train.settings import JointTrainingSettings


@dataclass
class PreferenceSettings(JointTrainingSettings):
    """Length, batch and learning rate of preference training; defaults are those of the published stage-3 run."""

    num_train_epochs: float = field(default=1.0, metadata={"help": "passes over the pairs or candidates"})
    per_device_train_batch_size: int = field(
        default=1, metadata={"help": "pairs or candidates per forward pass and device"}
    )
    learning_rate: float = field(default=1e-5, metadata={"help": "peak learning rate of AdamW (published 1e-5)"})
    warmup_steps: float = field(default=100, metadata={"help": "steps of linear warm-up; below 1: share of all steps"})
