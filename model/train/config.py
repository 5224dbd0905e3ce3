"""Settings of `python -m model.train`: the model, the part of it that trains, and the clips."""

from __future__ import annotations

from dataclasses import dataclass

from model.train.arguments import FlowMatchingConfig
from model.train.settings import TrainSettings


@dataclass
class TrainConfig(TrainSettings, FlowMatchingConfig):  # type: ignore[misc]
    """`TrainSettings` with the fields of `transformers.TrainingArguments`, checked."""

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
