"""Arguments of preference training: the settings joined with `transformers.TrainingArguments`, and their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from dpo.data.schema import MODALITIES
from dpo.loss.loss_types import check_objective
from dpo.loss.nft_settings import AdvantageMode, AdvantageScale, check_choice, check_nft
from dpo.train.dpo_settings import AVDPOSettings
from dpo.train.nft_settings import NFTSettings
from dpo.train.settings import Objective, TrainSettings
from model.train.arguments import JointTrainingArguments
from model.train.run_state import NEUTRAL_SETTINGS as RUN_NEUTRAL_SETTINGS
from model.train.settings import changed_settings, declared_names

_HARM_BELOW_ZERO = dict.fromkeys(("beta_video", "beta_audio"), "towards the loser") | dict.fromkeys(
    ("fm_weight", "fm_weight_video", "fm_weight_audio"), "away from the winner"
)
NEUTRAL_SETTINGS = RUN_NEUTRAL_SETTINGS | {"winner_error_window", "reward_weights"}
OWN_SETTINGS = {"dpo": declared_names(AVDPOSettings), "nft": declared_names(NFTSettings)}  # of each objective alone


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
        ignored = changed_settings(self, ("ref_model_mixup_alpha", "ref_model_sync_steps"))
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
class NFTConfig(NFTSettings, JointTrainingArguments):  # type: ignore[misc]
    """Arguments of `NFTTrainer`: loss, advantages, batches, and the fields of `TrainingArguments`.

    Raises:
        ValueError: a setting is out of range, or two settings exclude each other.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("nft_beta", "adv_clip"):
            if not 0 < getattr(self, name) < float("inf"):  # NaN fails this as well
                raise ValueError(f"{name} is {getattr(self, name)}, and the loss divides by it: give a number > 0.")
        check_nft(self.nft_beta, self.adv_clip, self.nft_form, self.nft_prediction)
        check_choice("adv_scale", self.adv_scale, get_args(AdvantageScale))
        check_choice("adv_mode", self.adv_mode, get_args(AdvantageMode))
        for name, weight in self.kl_weights.items():
            if not weight >= 0:
                raise ValueError(f"kl_weight_{name} is {weight}, which would push from the reference: give >= 0.")
        if not 0 <= self.replay_share < 1 or bool(self.replay) != bool(self.replay_share):
            raise ValueError(
                f"replay has {len(self.replay)} folders and replay_share is {self.replay_share}: give both, with a "
                "share in (0, 1), or leave both out."
            )
        self._check_rewards()

    @property
    def kl_weights(self) -> dict[str, float]:
        return {name: getattr(self, f"kl_weight_{name}") for name in MODALITIES}

    def _check_rewards(self) -> None:
        mix = self.reward_mix or {}
        numbers = [*mix.values()]
        if not isinstance(self.routing, dict):
            check_choice("routing", self.routing, ("routed", "summed"))
        else:
            if mix:
                raise ValueError(
                    "reward_mix and a mapping as routing both give weights: leave reward_mix out, or set routing to "
                    "'routed' or 'summed'."
                )
            for reward, losses in self.routing.items():
                if not isinstance(losses, dict) or not losses or set(losses) - set(MODALITIES):
                    raise ValueError(
                        f"routing of {reward} is {losses!r}: give a weight per modality, such as "
                        "{video: 0.5, audio: 1}."
                    )
                numbers += losses.values()
        for value in numbers:
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
                raise ValueError(f"A weight of a reward is {value!r}: give a finite number.")


@dataclass
class TrainConfig(TrainSettings, AVDPOConfig, NFTConfig):  # type: ignore[misc]
    """Arguments of `python -m dpo.train`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_adapter(self.trainable)
        self._check_objective()
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

    def _check_objective(self) -> None:
        check_choice("objective", self.objective, get_args(Objective))
        if self.objective == "nft" and self.precompute_ref_errors:
            raise ValueError(
                "precompute_ref_errors stores errors, but the objective nft needs the old policy's predictions, which "
                "change with every draw: turn it off; with trainable: lora they cost no memory."
            )
        other = "nft" if self.objective == "dpo" else "dpo"
        changed = changed_settings(self, OWN_SETTINGS[other])
        if changed:
            name, value = next(iter(changed.items()))
            raise ValueError(
                f"{name} is {value!r}, but belongs to the objective {other}, and objective is {self.objective!r}: "
                f"leave it out (of the YAML as well), or set objective to {other!r}."
            )

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
