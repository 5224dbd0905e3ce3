"""The trainer of joint audio-video DPO: one forward pass for winner and loser, the reference by adapter off."""

from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import TrainerCallback

from dpo.callbacks import WinnerErrorAlarm
from dpo.config import AVDPOConfig
from dpo.data import PairCollator, PairDataset
from dpo.lora import reference_model, share_dropout
from dpo.loss import AVDPOLoss, av_dpo_loss
from dpo.schema import MODALITIES
from model.batches import BucketBatchSampler
from model.flow import NUM_TRAIN_TIMESTEPS, add_noise, velocity_target
from model.joint_trainer import JointTrainer, network_of
from model.lora import attach_adapter
from model.training_metrics import sigma_bins, sigma_label
from model.transformer import JointDiT


class AVDPOTrainer(JointTrainer):
    """Preference training of an adapter.

    Logs hold, averaged since the last line, the metrics of `av_dpo_loss` and the accuracy per noise level
    (`rewards/accuracies/<modality>/sigma_0.2-0.4`, 0 = data, 1 = noise).
    """

    args: AVDPOConfig
    model: PeftModel
    train_dataset: PairDataset

    def __init__(
        self,
        model: JointDiT | PeftModel,
        args: AVDPOConfig,
        train_dataset: PairDataset,
        *,
        peft_config: LoraConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        """Checks the data against the model before any step.

        Args:
            model: a `JointDiT`, which gets a new adapter by `peft_config`, or one that already is a `PeftModel`, whose
                trainable adapter is trained and whose reference is the model without any adapter.
            args: the settings.
            train_dataset: the pairs.
            peft_config: the adapter to add.
            callbacks: watchers beside the log and the winner-error alarm.

        Raises:
            ValueError: no adapter to train, or data that this model cannot take.
        """
        network = network_of(model)
        train_dataset.check_network(network)
        train_dataset.check_finite()
        super().__init__(
            _adapted(model, peft_config, args.seed),
            args,
            train_dataset,
            BucketBatchSampler(
                train_dataset.labels, lambda label: args.train_batch_size, args.seed, args.dataloader_drop_last
            ),
            PairCollator(args.seed, train_dataset.negative_text, args.text_dropout, args.shift_scale),
            postfix=_margins,
            callbacks=[WinnerErrorAlarm(args.winner_error_window), *(callbacks or [])],
        )
        self._pending: list[dict[str, Tensor]] = []  # metrics of the steps since the last log line, (B,) each

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, AVDPOLoss]:
        """Mean preference loss of a batch of `PairCollator`; ValueError as soon as it is not finite."""
        noisy, target = noisy_pairs(inputs)
        unwrapped = self.accelerator.unwrap_model(model)
        with reference_model(unwrapped):
            reference = _velocities(unwrapped, noisy)
        policy = _velocities(model, noisy)
        args = self.args
        result = av_dpo_loss(
            policy,
            reference,
            target,
            beta=args.beta,
            modality_weights=args.modality_weights,
            fm_weight=args.fm_weight,
            loss_type=args.loss_type,
            label_smoothing=args.label_smoothing,
        )
        loss = result.loss.mean()
        pairs = [f"pair {prompt_id!r}" for prompt_id in inputs["prompt_id"]]
        self.check_finite(loss, pairs, "lower learning_rate or the betas")
        self._pending.append(result.metrics | {"sigma": inputs["timestep"] / NUM_TRAIN_TIMESTEPS})
        return (loss, result) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the preference metrics of the steps since the last line."""
        if self._pending:
            logs = logs | self._drain_metrics()
        super().log(logs, start_time)

    def _drain_metrics(self) -> dict[str, float]:
        names = list(self._pending[0])
        stacked = torch.cat([torch.stack([step[name] for name in names], dim=1) for step in self._pending])
        self._pending.clear()
        values = dict(zip(names, self.accelerator.gather(stacked).T, strict=True))  # (pairs,) each
        sigma = values.pop("sigma")
        means = {name: value.mean().item() for name, value in values.items()}
        return means | _accuracy_by_sigma(values, sigma)


def noisy_pairs(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The network's arguments for a batch of `PairCollator`, and the velocities it should predict, all (2B, ...).

    Winner and loser of a pair are rows i and B + i; they get the same noise, timestep and text.
    """
    timestep = batch["timestep"].repeat(2)
    arguments = {
        "timestep": timestep,
        "text": batch["text"].repeat(2, 1, 1),
        "text_mask": batch["text_mask"].repeat(2, 1),
        "num_frames": batch["num_frames"],
    }
    target = {}
    for name in MODALITIES:
        noise = torch.cat([batch[f"{name}_noise"]] * 2)
        arguments[name] = add_noise(batch[name], noise, timestep)
        target[name] = velocity_target(batch[name], noise)
    return arguments, target


def _adapted(model: JointDiT | PeftModel, peft_config: LoraConfig | None, seed: int) -> PeftModel:
    if isinstance(model, PeftModel):
        if peft_config is not None:
            raise ValueError("The model has an adapter and peft_config would add another one: give only one of them.")
        adapted = share_dropout(model)
    elif peft_config is None:
        raise ValueError(
            "The model has no adapter, so there is nothing to train and nothing to switch off for the reference: pass "
            "peft_config=LoraConfig(...)."
        )
    else:
        adapted = share_dropout(attach_adapter(model, peft_config, seed))
    return adapted


def _margins(logs: Mapping[str, Any]) -> dict[str, str]:
    """What the progress bar shows: the loss and the margins."""
    margins = {f"margin/{name}": f"{logs[f'rewards/margins/{name}']:+.3f}" for name in MODALITIES}
    return {"loss": f"{logs['loss']:.3f}"} | margins


def _velocities(model: nn.Module, arguments: dict[str, Any]) -> dict[str, Tensor]:
    output = model(**arguments)
    return {name: getattr(output, name) for name in MODALITIES}


def _accuracy_by_sigma(values: dict[str, Tensor], sigma: Tensor) -> dict[str, float]:
    bins = sigma_bins(sigma)
    accuracies = {}
    for name in MODALITIES:
        key = f"rewards/accuracies/{name}"
        for index in bins.unique().tolist():
            accuracies[f"{key}/{sigma_label(index)}"] = values[key][bins == index].mean().item()
    return accuracies
