"""Arguments of preference training: the settings joined with `transformers.TrainingArguments`, and their checks."""

from __future__ import annotations

from dataclasses import dataclass

from dpo.data.schema import MODALITIES
from dpo.loss.loss_types import check_objective
from dpo.train.settings import AVDPOSettings, TrainSettings
from model.train.arguments import JointTrainingArguments
from model.train.run_state import NEUTRAL_SETTINGS as RUN_NEUTRAL_SETTINGS
from model.train.settings import changed_settings

_HARM_BELOW_ZERO = dict.fromkeys(("beta_video", "beta_audio"), "towards the loser") | dict.fromkeys(
    ("fm_weight", "fm_weight_video", "fm_weight_audio"), "away from the winner"
)


@dataclass
class AVDPOConfig(AVDPOSettings, JointTrainingArguments):  # type: ignore[misc]
    """Arguments of `AVDPOTrainer`: loss, reference model, warnings, and the fields of `TrainingArguments`.

    Raises:
        ValueError: a setting is out of range, or two settings exclude each other.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, harm in _HARM_BELOW_ZERO.items():
            value = getattr(self, name)
            if value is not None and not value >= 0:  # NaN fails this as well
                raise ValueError(f"{name} is {value}, which would train {harm}: give a number >= 0.")
        check_objective(self.loss_type, self.label_smoothing, self.winner_preserving_mu)
        if not self.region_weight >= 0:
            raise ValueError(f"region_weight is {self.region_weight}, which would train towards the loser: give >= 0.")
        if self.stage_epochs is not None and self.stage_epochs < 1:
            raise ValueError(f"stage_epochs is {self.stage_epochs}: give at least 1 epoch, or leave it out.")
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
        if self.region_weight and self.precompute_ref_errors:
            raise ValueError(
                "region_weight needs the reference's predictions, and precompute_ref_errors keeps its errors of "
                "whole clips only: turn one off."
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
class TrainConfig(TrainSettings, AVDPOConfig):  # type: ignore[misc]
    """Arguments of `python -m dpo.train`."""

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
                f"eval_strategy is {self.eval_strategy!r}, but there is nothing to evaluate: give eval_dataset or "
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
