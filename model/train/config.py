"""Settings of `python -m model.train`: the model, the part of it that trains, and the clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model.javisdit.network.config import FFN
from model.javisdit.network.positions import AudioPositionRule
from model.train.adapter_arguments import AdapterArguments
from model.train.arguments import FlowMatchingConfig

Trainable = Literal["audio", "lora", "full"]


@dataclass
class TrainConfig(AdapterArguments, FlowMatchingConfig):
    """Settings of stages 1 (`trainable: audio`) and 2 (`lora` or `full`)."""

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

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_adapter(self.trainable)
        if (self.dataset is None) == (self.clips is None):
            raise ValueError(
                f"dataset is {self.dataset!r} and clips is {self.clips!r}: give one of them, a folder made by "
                "`python -m model.prepare`, or a table of clips to encode as they come."
            )
        if self.clips is not None and not self.buckets:
            raise ValueError(
                "buckets is empty, but clips are cut to the sizes and lengths that it lists: see the recipes."
            )
        if self.video_backbone is not None and self.trainable == "lora":
            raise ValueError(
                "trainable is 'lora', whose adapter needs a model on disk, but video_backbone makes a new model: run "
                "stage 1 on the backbone first, and give its folder as model."
            )
        if self.video_backbone is None and (self.ffn or self.audio_positions):
            raise ValueError(
                "ffn and audio_positions are the model's own; they can be chosen with video_backbone only."
            )
        if self.eval_strategy != "no" and not (self.eval_dataset or self.sample_prompts):
            raise ValueError(
                f"eval_strategy is {self.eval_strategy!r}, but there is nothing to evaluate: give eval_dataset or "
                "sample_prompts."
            )
