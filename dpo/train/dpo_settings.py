"""Settings of the objective dpo. Names follow TRL where TRL has the setting; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from dpo.loss.loss_types import LossType
from dpo.train.objective_settings import PreferenceSettings


@dataclass
class AVDPOSettings(PreferenceSettings):
    """Settings of the loss, the reference model and the warnings of `AVDPOTrainer`."""

    section: ClassVar[str] = "With objective dpo:"

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
        metadata={"help": "with dpo.construct: epochs on each stage in turn, coarse shifts first; default: all stages"},
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
    train_on_mark: bool = field(
        default=False,
        metadata={"help": "train a modality though the signal test of dpo.construct found the mark of the rule in it"},
    )
    winner_error_window: int = field(
        default=50,
        metadata={"help": "warn after this many steps in which the winner's error stays above the reference's"},
    )
