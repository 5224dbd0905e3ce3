"""Settings of preference training, without the fields of `transformers.TrainingArguments`.

Names follow TRL where TRL has the setting; one field per modality replaces a single number. Importing this module does
not import torch, so `--help` reads the settings from here; `dpo.train.config` joins them with `TrainingArguments`.
Learning rate, warm-up, optimiser, seed and loss weights default to the published stage-3 run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dpo.loss.loss_types import LossType
from model.train.settings import AdapterArguments, JointTrainingSettings

Trainable = Literal["lora", "full"]
AdapterStart = Literal["new", "continue"]


@dataclass
class AVDPOSettings(JointTrainingSettings):
    """Settings of the loss, the reference model and the warnings of `AVDPOTrainer`."""

    beta_video: float = field(default=3000.0, metadata={"help": "strength of the video preference (published 3000)"})
    beta_audio: float = field(default=1000.0, metadata={"help": "strength of the audio preference (published 1000)"})
    fm_weight: float = field(
        default=0.1,
        metadata={"help": "weight of the winner's flow-matching error; keeps the model close to the data"},
    )
    fm_weight_video: float | None = field(default=None, metadata={"help": "fm_weight of video, if different"})
    fm_weight_audio: float | None = field(default=None, metadata={"help": "fm_weight of audio, if different"})
    loss_type: LossType = field(default="sigmoid", metadata={"help": "sigmoid (published), robust, ipo or hinge"})
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "assumed share of pairs with swapped labels, in [0, 0.5)"},
    )
    winner_preserving_mu: float | None = field(
        default=None,
        metadata={
            "help": "in [0, 1]: limit the loser's gradient so that the winner's error falls (Diffusion-SDPO: 0.9)"
        },
    )
    region_weight: float = field(
        default=0.0,
        metadata={"help": "weight of the loss on the regions of dpo.construct --distortion regional (LocalDPO: 1)"},
    )
    margin_weighting: bool = field(
        default=False, metadata={"help": "weight each pair by its ranking margin, with mean 1"}
    )
    stage_epochs: int | None = field(
        default=None,
        metadata={
            "help": "with pairs of dpo.construct: epochs on each stage, one after the other, coarse shifts first; by "
            "default every epoch has the pairs of all stages"
        },
    )
    precompute_ref_errors: bool = field(
        default=False,
        metadata={"help": "compute the reference's errors before the first step, so that no second network is needed"},
    )
    sync_ref_model: bool = field(
        default=False, metadata={"help": "with trainable full: move the reference towards the policy (TR-DPO)"}
    )
    ref_model_mixup_alpha: float = field(
        default=0.6, metadata={"help": "with sync_ref_model: share of the way to the policy; 1 copies the policy"}
    )
    ref_model_sync_steps: int = field(
        default=512, metadata={"help": "with sync_ref_model: steps between two moves of the reference"}
    )
    winner_error_window: int = field(
        default=50,
        metadata={"help": "warn after this many steps in which the winner's error stays above the reference's"},
    )

    num_train_epochs: float = field(default=1.0, metadata={"help": "passes over the pairs"})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "pairs per forward pass and device"})
    learning_rate: float = field(default=1e-5, metadata={"help": "peak learning rate of AdamW (published 1e-5)"})
    warmup_steps: float = field(default=100, metadata={"help": "steps of linear warm-up; below 1: share of all steps"})


@dataclass
class TrainSettings(AdapterArguments, AVDPOSettings):
    """Settings of `python -m dpo.train`: model, data and evaluation during training."""

    model: str = field(default="", metadata={"help": "model to align: 'tiny', a model folder or an adapter folder"})
    dataset: str = field(default="", metadata={"help": "folder written by `python -m dpo.prepare`"})
    eval_dataset: str | None = field(
        default=None, metadata={"help": "folder of pairs that are not trained on, also written by dpo.prepare"}
    )
    train_on_mark: bool = field(
        default=False,
        metadata={"help": "train a modality though the signal test of dpo.construct found the mark of the rule in it"},
    )
    trainable: Trainable = field(
        default="lora", metadata={"help": "lora (published; the reference costs no memory) or full"}
    )
    adapter: AdapterStart = field(
        default="new",
        metadata={
            "help": "with an adapter folder: 'continue' trains it (published), 'new' merges it and trains another"
        },
    )
    lora_dropout: float = field(
        default=0.0,
        metadata={
            "help": "dropout of the adapter (published 0.05); its noise makes the policy differ from the reference"
        },
    )
    eval_rewards: list[str] = field(
        default_factory=list, metadata={"help": "rewards that score the samples of sample_prompts"}
    )
    held_out_rewards: list[str] = field(
        default_factory=list, metadata={"help": "rewards for the same samples that did not rank the pairs"}
    )
    reward_weights: str | None = field(
        default=None, metadata={"help": "folder of the rewards' weights, or 'tiny'; see rewards.score"}
    )
    stop_on_decline: float | None = field(
        default=None,
        metadata={
            "help": "stop when held-out scores are this many standard deviations below their start, twice in a row"
        },
    )
