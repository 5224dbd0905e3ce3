"""Settings of flow-matching training (stages 1 and 2), without the fields of `transformers.TrainingArguments`.

Importing this module does not import torch, so `--help` reads the settings from here. `model.train.arguments` joins
them with `TrainingArguments`. Defaults are the published ones (docs/upstream/training.md, section 2).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from model.javisdit.network.config import FFN, AudioPositionRule
from model.train.freezing import LORA_ALPHA, LORA_DROPOUT, LORA_R, LORA_TARGET_MODULES

OptimizerName = Literal["adamw", "muon"]
Dtype = Literal["float32", "bfloat16"]
Trainable = Literal["audio", "lora", "full"]


@dataclass
class JointTrainingSettings:
    """Settings that flow-matching training and preference training share."""

    text_dropout: float = field(
        default=0.1, metadata={"help": "chance that the negative prompt replaces a caption (published 0.1)"}
    )
    shift_scale: float = field(default=5.0, metadata={"help": "timestep shift of the training draws (published 5.0)"})
    video_weight: float = field(default=1.0, metadata={"help": "weight of the video loss (published 1)"})
    audio_weight: float = field(default=1.0, metadata={"help": "weight of the audio loss (published 1)"})

    tokens_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "tokens of a batch: as many clips or pairs of one shape as fit; else per_device_train_batch_size"
        },
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
        default_factory=list, metadata={"help": "captions; a sample of each is written every eval_steps"}
    )
    num_workers: int = field(default=0, metadata={"help": "processes that Ray Train starts; 0: this process alone"})
    dry_run: bool = field(default=False, metadata={"help": "check everything, print the plan and stop"})


@dataclass
class FlowMatchingSettings(JointTrainingSettings):
    """Settings that `FlowMatchingTrainer` reads."""

    optimizer: OptimizerName = field(
        default="adamw", metadata={"help": "adamw (published); muon trains small models from scratch in fewer steps"}
    )


@dataclass
class AdapterArguments:
    """Settings that `model.lora.lora_config` reads, and the precision of frozen weights."""

    model: str = field(
        default="", metadata={"help": "model to train: a folder or 'tiny'; the name of a size is enough for a dry run"}
    )
    dtype: Dtype = field(
        default="float32", metadata={"help": "precision of frozen weights; bfloat16 for LoRA on large models"}
    )
    lora_r: int = field(default=LORA_R, metadata={"help": "rank of the adapter (published 64)"})
    lora_alpha: int = field(
        default=LORA_ALPHA, metadata={"help": "the adapter is scaled by lora_alpha / lora_r (published 16)"}
    )
    lora_dropout: float = field(default=LORA_DROPOUT, metadata={"help": "dropout of the adapter (published 0.05)"})
    lora_target_modules: list[str] = field(
        default_factory=lambda: list(LORA_TARGET_MODULES), metadata={"help": "name endings of the adapted layers"}
    )

    def check_adapter(self, trainable: str) -> None:
        """Raise ValueError for no model, settings without an adapter, or a precision that loses small updates."""
        if not self.model:
            raise ValueError("model is empty, so there is nothing to train: set --model to a model folder or 'tiny'.")
        if self.dtype != "float32" and trainable != "lora":
            raise ValueError(
                f"dtype {self.dtype} would lose small updates of the weights that train: use float32 (bf16 true makes "
                "the products bfloat16 all the same), or trainable: lora."
            )
        changed = self.changed_adapter_settings()
        if changed and trainable != "lora":
            name, value = next(iter(changed.items()))
            raise ValueError(
                f"{name} is {value!r}, but trainable {trainable!r} has no adapter, so it would be lost: leave it out "
                "(of the YAML as well), or use trainable: lora."
            )
        if self.lora_r < 1 or not 0 <= self.lora_dropout < 1:
            raise ValueError(
                f"lora_r {self.lora_r} and lora_dropout {self.lora_dropout} make no adapter: "
                "give a rank >= 1 and a dropout in [0, 1)."
            )

    def changed_adapter_settings(self) -> dict[str, Any]:
        """Return the `lora_*` settings that differ from their defaults."""
        return changed_settings(self, ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"))


@dataclass
class TrainSettings(AdapterArguments, FlowMatchingSettings):
    """Settings of `python -m model.train`: stages 1 (`trainable: audio`) and 2 (`lora` or `full`)."""

    video_backbone: str | None = field(
        default=None,
        metadata={"help": "Wan2.1 transformer to start from; the audio part begins as its copy"},
    )
    ffn: FFN | None = field(
        default=None, metadata={"help": "with video_backbone: 'modality' (MS-MoE, published) or 'shared' (ablation)"}
    )
    audio_positions: AudioPositionRule | None = field(
        default=None, metadata={"help": "with video_backbone: 'ta_rope' (published), or a rule of the ablation"}
    )
    trainable: Trainable = field(
        default="full", metadata={"help": "audio (stage 1: the audio part, on sound only), lora (stage 2) or full"}
    )
    dataset: str | None = field(default=None, metadata={"help": "folder written by `python -m model.prepare`"})
    eval_dataset: str | None = field(
        default=None, metadata={"help": "folder of other clips, for the error on unseen data"}
    )
    clips: str | None = field(
        default=None,
        metadata={"help": "table or folder of clips that are encoded during training, instead of a dataset"},
    )
    buckets: dict | None = field(
        default=None, metadata={"help": "with clips: resolution -> frames -> {batch_size, keep, time}"}
    )
    fps: float = field(default=16.0, metadata={"help": "with clips: frames per second of the model (published 16)"})
    audio_fps: float = field(
        default=24.0, metadata={"help": "with clips and trainable audio: frames of a bucket per second (published 24)"}
    )


def changed_settings(settings: Any, names: Collection[str]) -> dict[str, Any]:
    """Return those of the named fields of a dataclass whose values differ from the defaults."""
    own = [one for one in fields(settings) if one.name in names]
    defaults = {one.name: one.default if one.default_factory is MISSING else one.default_factory() for one in own}
    return {name: getattr(settings, name) for name, default in defaults.items() if getattr(settings, name) != default}


def declared_names(settings_class: type[Any]) -> list[str]:
    """Return the names of the fields that a dataclass itself declares, without those of its bases."""
    return [one.name for one in fields(settings_class) if one.name in vars(settings_class)["__annotations__"]]
