"""Settings of `python -m synthetic.bootstrap`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """Settings of `python -m synthetic.bootstrap`; recipes/tiny/bootstrap.yaml made the shipped preset."""

    output: Path = field(metadata={"help": "folder of the finished preset"})
    work_dir: Path = field(default=Path("runs/bootstrap"), metadata={"help": "folder of the parts and checkpoints"})
    text_steps: int = field(default=400, metadata={"help": "steps of the text encoder"})
    video_codec_steps: int = field(default=900, metadata={"help": "steps of the video codec"})
    audio_codec_steps: int = field(default=500, metadata={"help": "steps of the audio codec"})
    num_scenes: int = field(default=8192, metadata={"help": "scenes whose latents the transformer is trained on"})
    num_eval_scenes: int = field(default=128, metadata={"help": "held-out scenes whose error is logged in training"})
    training: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "settings of model.train for all three stages"}
    )
    backbone: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "settings of model.train for the video backbone alone"}
    )
    stage1: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "settings of model.train for audio pre-training alone"}
    )
    stage2: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "settings of model.train for joint training alone"}
    )
    grade_captions: int = field(
        default=40, metadata={"help": "held-out captions to grade after the codecs and after stage 2; 0: none"}
    )
    seed: int = field(default=0, metadata={"help": "seed of every part's initial weights, order and noise"})
