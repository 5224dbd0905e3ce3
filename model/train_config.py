"""Settings of `python -m model.train`: which model, which part of it, on which clips."""

from dataclasses import dataclass, field
from typing import Literal

from model.config import FFN
from model.positions import AudioPositionRule
from model.stages import LORA_ALPHA, LORA_DROPOUT, LORA_R, LORA_TARGET_MODULES
from model.training_args import FlowMatchingConfig

Trainable = Literal["audio", "lora", "full"]
Dtype = Literal["float32", "bfloat16"]


@dataclass
class TrainConfig(FlowMatchingConfig):
    """Stages 1 (`trainable: audio`) and 2 (`lora` or `full`)."""

    model: str = field(
        default="", metadata={"help": "model to go on from: a folder or 'tiny'; a size's name is enough for a dry run"}
    )
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
        default="full", metadata={"help": "audio (stage 1: the audio part, on sound alone), lora (stage 2) or full"}
    )
    dataset: str | None = field(default=None, metadata={"help": "folder written by `python -m model.prepare`"})
    eval_dataset: str | None = field(default=None, metadata={"help": "such a folder, for the error on unseen clips"})
    clips: str | None = field(
        default=None, metadata={"help": "table or folder of clips, encoded as they come, in place of a dataset"}
    )
    buckets: dict | None = field(
        default=None, metadata={"help": "with clips: resolution -> frames -> {batch_size, keep, time}"}
    )
    fps: float = field(default=16.0, metadata={"help": "with clips: frames per second of the model (published 16)"})
    audio_fps: float = field(
        default=24.0, metadata={"help": "with clips and trainable audio: frames of a bucket per second (published 24)"}
    )
    dtype: Dtype = field(default="float32", metadata={"help": "of frozen weights; bfloat16 for LoRA on large models"})
    lora_r: int = field(default=LORA_R, metadata={"help": "rank of the adapter (published 64)"})
    lora_alpha: int = field(default=LORA_ALPHA, metadata={"help": "scale is lora_alpha / lora_r (published 16)"})
    lora_dropout: float = field(default=LORA_DROPOUT, metadata={"help": "published 0.05"})
    lora_target_modules: list[str] = field(
        default_factory=lambda: list(LORA_TARGET_MODULES), metadata={"help": "name endings of the adapted layers"}
    )
    sample_prompts: list[str] = field(
        default_factory=list, metadata={"help": "captions of which samples are written every eval_steps"}
    )
    num_workers: int = field(default=0, metadata={"help": "processes started through Ray Train; 0: this one alone"})
    dry_run: bool = field(default=False, metadata={"help": "check everything, print the plan and stop"})

    def __post_init__(self) -> None:
        bf16 = self.bf16
        if self.dry_run:
            self.bf16 = False  # transformers refuses it without a GPU, and a plan needs none
        super().__post_init__()
        self.bf16 = bf16
        if not self.model:
            raise ValueError("model is empty, so there is nothing to train: set --model to a model folder or 'tiny'.")
        if (self.dataset is None) == (self.clips is None):
            raise ValueError(
                f"dataset is {self.dataset!r} and clips is {self.clips!r}: give one of them, a folder made by "
                "`python -m model.prepare`, or a table of clips to encode as they come."
            )
        if self.clips is not None and not self.buckets:
            raise ValueError("clips need buckets, which say what sizes and lengths to cut them to: see the recipes.")
        if self.video_backbone is not None and self.trainable == "lora":
            raise ValueError(
                "An adapter belongs to a model on disk, and video_backbone makes a new one: run stage 1 on the "
                "backbone first, and give its folder as model."
            )
        if self.video_backbone is None and (self.ffn or self.audio_positions):
            raise ValueError(
                "ffn and audio_positions are the model's own; they can be chosen with video_backbone only."
            )
        if self.dtype != "float32" and self.trainable != "lora":
            raise ValueError(
                f"dtype {self.dtype} would lose small updates of the weights that train: use float32 (bf16 true makes "
                "the products bfloat16 all the same), or trainable: lora."
            )
        if self.lora_r < 1 or not 0 <= self.lora_dropout < 1:
            raise ValueError(
                f"lora_r {self.lora_r} and lora_dropout {self.lora_dropout} make no adapter: "
                "give a rank >= 1 and a dropout in [0, 1)."
            )
        if self.eval_strategy != "no" and not (self.eval_dataset or self.sample_prompts):
            raise ValueError(
                f"eval_strategy is {self.eval_strategy!r}, but there is nothing to look at: give eval_dataset or "
                "sample_prompts."
            )
