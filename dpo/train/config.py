"""Settings of preference training: TRL's names where TRL has them, one field per modality where it has one number.

Learning rate, warm-up, optimiser, seed and loss weights default to the published stage-3 run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dpo.data.schema import MODALITIES
from dpo.loss.objectives import LossType, check_objective
from model.train.adapter_arguments import AdapterArguments, changed_settings
from model.train.arguments import JointTrainingArguments
from model.train.run_state import NEUTRAL_SETTINGS as RUN_NEUTRAL_SETTINGS

Trainable = Literal["lora", "full"]
AdapterStart = Literal["new", "continue"]
_HARM_BELOW_ZERO = dict.fromkeys(("beta_video", "beta_audio"), "towards the loser") | dict.fromkeys(
    ("fm_weight", "fm_weight_video", "fm_weight_audio"), "away from the winner"
)


@dataclass
class AVDPOConfig(JointTrainingArguments):
    """What every training of a joint model can set, plus the loss, the reference and the alarms of `AVDPOTrainer`."""

    beta_video: float = field(default=3000.0, metadata={"help": "strength of the video preference (published 3000)"})
    beta_audio: float = field(default=1000.0, metadata={"help": "strength of the audio preference (published 1000)"})
    fm_weight: float = field(
        default=0.1,
        metadata={"help": "weight of the winner's flow-matching error, which keeps the model on the data"},
    )
    fm_weight_video: float | None = field(default=None, metadata={"help": "the same for video, where it differs"})
    fm_weight_audio: float | None = field(default=None, metadata={"help": "the same for audio, where it differs"})
    loss_type: LossType = field(default="sigmoid", metadata={"help": "sigmoid (published), robust, ipo or hinge"})
    label_smoothing: float = field(
        default=0.0,
        metadata={"help": "share of pairs assumed to be labelled the wrong way round, in [0, 0.5)"},
    )
    winner_preserving_mu: float | None = field(
        default=None,
        metadata={"help": "in [0, 1]: push the loser only where the winner can bear it (Diffusion-SDPO: 0.9); off"},
    )
    margin_weighting: bool = field(
        default=False, metadata={"help": "weigh each pair by the margin of its ranking, with mean 1"}
    )
    precompute_ref_errors: bool = field(
        default=False,
        metadata={"help": "compute the reference's errors before the first step: no second network"},
    )
    sync_ref_model: bool = field(
        default=False, metadata={"help": "with trainable full: let the reference follow the policy (TR-DPO)"}
    )
    ref_model_mixup_alpha: float = field(
        default=0.6, metadata={"help": "with sync_ref_model: how far the reference moves, 1 is onto the policy"}
    )
    ref_model_sync_steps: int = field(default=512, metadata={"help": "with sync_ref_model: steps between its moves"})
    winner_error_window: int = field(
        default=50,
        metadata={"help": "warn when the winner's error stays above the reference's for so many steps"},
    )

    num_train_epochs: float = field(default=1.0, metadata={"help": "passes over the pairs"})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "pairs per forward pass and device"})
    learning_rate: float = field(default=1e-5, metadata={"help": "peak learning rate of AdamW (published 1e-5)"})
    warmup_steps: float = field(default=100, metadata={"help": "steps of linear warm-up; below 1: share of all steps"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, harm in _HARM_BELOW_ZERO.items():
            value = getattr(self, name)
            if value is not None and not value >= 0:  # NaN fails this as well
                raise ValueError(f"{name} is {value}, which would train {harm}: give a number >= 0.")
        check_objective(self.loss_type, self.label_smoothing, self.winner_preserving_mu)
        if self.winner_error_window < 1:
            raise ValueError(f"winner_error_window is {self.winner_error_window}: give at least 1 step.")
        self._check_reference()

    @property
    def beta(self) -> dict[str, float]:
        return {name: getattr(self, f"beta_{name}") for name in MODALITIES}

    @property
    def fm_weights(self) -> dict[str, float]:
        given = {name: getattr(self, f"fm_weight_{name}") for name in MODALITIES}
        return {name: self.fm_weight if value is None else value for name, value in given.items()}

    def _check_reference(self) -> None:
        if self.sync_ref_model and self.precompute_ref_errors:
            raise ValueError(
                "sync_ref_model moves the reference, and precompute_ref_errors computes its errors once: turn one off."
            )
        ignored = changed_settings(self, "ref_model_")
        if ignored and not self.sync_ref_model:
            name, value = next(iter(ignored.items()))
            raise ValueError(
                f"{name} is {value}, but the reference stands still: set sync_ref_model, or leave {name} out (of the "
                "YAML as well)."
            )
        if not 0 < self.ref_model_mixup_alpha <= 1 or self.ref_model_sync_steps < 1:
            raise ValueError(
                f"ref_model_mixup_alpha is {self.ref_model_mixup_alpha} and ref_model_sync_steps "
                f"{self.ref_model_sync_steps}: give a share in (0, 1] and at least 1 step."
            )


@dataclass
class TrainConfig(AdapterArguments, AVDPOConfig):
    """`python -m dpo.train`: what to train on what, and what to look at on the way."""

    model: str = field(default="", metadata={"help": "model to align: 'tiny', a model folder or an adapter folder"})
    dataset: str = field(default="", metadata={"help": "folder written by `python -m dpo.prepare`"})
    eval_dataset: str | None = field(default=None, metadata={"help": "such a folder, of pairs that are not trained on"})
    trainable: Trainable = field(
        default="lora", metadata={"help": "lora (published; the reference costs no memory) or full"}
    )
    adapter: AdapterStart = field(
        default="new",
        metadata={
            "help": "of an adapter folder: 'continue' trains it on (published), 'new' merges it and trains another"
        },
    )
    lora_dropout: float = field(
        default=0.0,
        metadata={"help": "published 0.05; above 0 the policy differs from the reference by the mask's noise"},
    )
    eval_rewards: list[str] = field(
        default_factory=list, metadata={"help": "rewards by which the samples of sample_prompts are scored"}
    )
    held_out_rewards: list[str] = field(
        default_factory=list, metadata={"help": "the same for rewards that the pairs were not ranked by"}
    )
    reward_weights: str | None = field(
        default=None, metadata={"help": "folder of the rewards' weights, or 'tiny'; see rewards.score"}
    )
    stop_on_decline: float | None = field(
        default=None,
        metadata={
            "help": "stop when held-out scores fall so many standard deviations below the start's, twice in a row"
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_adapter(self.trainable)
        if not self.dataset:
            raise ValueError(
                "dataset is empty, so there is nothing to train on: set --dataset to a folder made by dpo.prepare."
            )
        if self.trainable == "full" and self.adapter == "continue":
            raise ValueError("adapter 'continue' trains an adapter on, and trainable 'full' has none: choose one.")
        if self.trainable == "lora" and self.sync_ref_model:
            raise ValueError(
                "sync_ref_model needs a reference of its own, and with an adapter it is the network without it: use "
                "trainable: full, or turn it off."
            )
        self._check_evaluation()

    def _check_evaluation(self) -> None:
        scored = [*self.eval_rewards, *self.held_out_rewards]
        if self.eval_strategy != "no" and not (self.sample_prompts or self.eval_dataset):
            raise ValueError(
                f"eval_strategy is {self.eval_strategy!r}, but there is nothing to look at: give eval_dataset or "
                "sample_prompts, and compare finished models with `python -m evaluation.compare`."
            )
        if self.eval_strategy == "no" and (self.sample_prompts or self.eval_dataset or scored):
            raise ValueError(
                "eval_dataset, sample_prompts and rewards are looked at every eval_steps: set eval_strategy to 'steps'."
            )
        if scored and not self.sample_prompts:
            raise ValueError(f"{scored[0]} has no samples to score: give sample_prompts.")
        if self.eval_dataset and self.trainable == "full" and self.precompute_ref_errors:
            raise ValueError(
                "eval_dataset needs a reference in memory, and precompute_ref_errors is there to have none: turn one "
                "off."
            )
        if self.stop_on_decline is None:
            return
        if not self.held_out_rewards or len(self.sample_prompts) < 2 or not self.stop_on_decline >= 0:
            raise ValueError(
                f"stop_on_decline is {self.stop_on_decline}, with {len(self.held_out_rewards)} held_out_rewards and "
                f"{len(self.sample_prompts)} sample_prompts: it needs a number >= 0, a reward and two prompts at least."
            )


NEUTRAL_SETTINGS = RUN_NEUTRAL_SETTINGS | {"winner_error_window", "reward_weights"}
