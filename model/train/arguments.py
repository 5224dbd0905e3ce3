"""Settings of flow-matching training (stages 1 and 2), with the published defaults.

Source: docs/upstream/training.md, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import TrainingArguments

from model.data.latent_schema import MODALITIES
from model.flow import TRAINING_SHIFT_SCALE

OptimizerName = Literal["adamw", "muon"]


@dataclass
class JointTrainingArguments(TrainingArguments):
    """Settings shared by flow-matching and preference training of a joint model."""

    text_dropout: float = field(
        default=0.1, metadata={"help": "chance that the negative prompt replaces a caption (published 0.1)"}
    )
    shift_scale: float = field(
        default=TRAINING_SHIFT_SCALE, metadata={"help": "timestep shift of the training draws (published 5.0)"}
    )
    video_weight: float = field(default=1.0, metadata={"help": "weight of the video loss (published 1)"})
    audio_weight: float = field(default=1.0, metadata={"help": "weight of the audio loss (published 1)"})

    tokens_per_batch: int | None = field(
        default=None,
        metadata={"help": "as many clips or pairs of one shape as fit; else per_device_train_batch_size"},
    )

    output_dir: str | None = field(default=None, metadata={"help": "folder for the model, checkpoints and logs"})
    learning_rate: float = field(default=1e-4, metadata={"help": "peak learning rate (published 1e-4, stage 3 1e-5)"})
    lr_scheduler_type: str = field(default="constant_with_warmup", metadata={"help": "learning rate schedule"})
    warmup_steps: float = field(default=1000, metadata={"help": "steps of linear warm-up; below 1: share of all steps"})
    adam_epsilon: float = field(default=1e-15, metadata={"help": "epsilon of AdamW (published 1e-15)"})
    seed: int = field(default=42, metadata={"help": "seed of order, noise, timesteps and dropout (published 42)"})
    logging_steps: float = field(default=10, metadata={"help": "steps between two lines of train_log.jsonl"})
    logging_first_step: bool = field(default=True, metadata={"help": "log step 1 as well"})
    save_steps: float = field(default=1000, metadata={"help": "steps between two checkpoints (published 1000)"})
    save_total_limit: int | None = field(default=2, metadata={"help": "checkpoints kept"})
    report_to: str = field(
        default="none", metadata={"help": "wandb, tensorboard, ...; train_log.jsonl is always written"}
    )
    ema_decay: float = field(
        default=0.99, metadata={"help": "decay of the running average of the weights (published 0.99); 0 turns it off"}
    )
    sample_prompts: list[str] = field(
        default_factory=list, metadata={"help": "captions of which samples are written every eval_steps"}
    )
    num_workers: int = field(default=0, metadata={"help": "processes started through Ray Train; 0: this one alone"})
    dry_run: bool = field(default=False, metadata={"help": "check everything, print the plan and stop"})

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
class FlowMatchingConfig(JointTrainingArguments):
    """Settings of `FlowMatchingTrainer`: `transformers.TrainingArguments`, draws and optimiser."""

    optimizer: OptimizerName = field(
        default="adamw", metadata={"help": "adamw (published); muon learns small models from nothing in fewer steps"}
    )


def resolved_settings(args: TrainingArguments) -> dict[str, Any]:
    """Return this project's settings and all that differ from `TrainingArguments`' defaults, as plain JSON values."""
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
    defaults = same.to_dict() | own
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
