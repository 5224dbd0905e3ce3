"""The trainer of stages 1 and 2: flow matching on sound alone, or on sound and picture together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from model.data.latent_dataset import FlowCollator, TrainingClips, batch_sampler
from model.data.latent_schema import MODALITIES
from model.flow import NUM_TRAIN_TIMESTEPS, add_noise, velocity_target
from model.javisdit.network.transformer import JointDiT
from model.optimizers import Muon
from model.train.arguments import FlowMatchingConfig
from model.train.joint_trainer import JointTrainer, network_of, reshard
from model.train.metrics import LossMeter


class FlowMatchingTrainer(JointTrainer):
    """Trainer that minimises the weighted sum of the modalities' mean squared velocity errors at one noise level.

    The parameters that require a gradient (`model.train.freezing` chooses them) are trained. Log lines hold
    `loss/<modality>`, in total and by noise level.
    """

    args: FlowMatchingConfig

    def __init__(
        self,
        model: JointDiT | PeftModel,
        args: FlowMatchingConfig,
        train_dataset: TrainingClips,
        *,
        eval_dataset: TrainingClips | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        """Create the trainer and check the data against the model.

        Args:
            model: a network with some trainable parameters, or one with an adapter.
            args: the settings.
            train_dataset: prepared clips, or clips that are encoded as they come.
            eval_dataset: clips whose error is measured at every evaluation, always at the same draws.
            callbacks: callbacks beside the log, such as `model.train.samples.SampleWriter`.

        Raises:
            ValueError: nothing to train, or data that do not fit the model.
        """
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(
                "No parameter of the model requires a gradient: choose trainable ones by model.train.freezing."
            )
        self.collate = FlowCollator(args.seed, train_dataset.negative_text, args.text_dropout, args.shift_scale)
        super().__init__(
            model,
            args,
            train_dataset,
            batch_sampler(train_dataset, args, network_of(model).config),
            train_dataset.collator(self.collate),
            postfix=_postfix,
            callbacks=callbacks,
            eval_dataset=() if eval_dataset is None else eval_dataset,  # evaluation may be samples alone
        )
        for dataset in filter(None, (train_dataset, eval_dataset)):
            dataset.check_network(self.network.config)
        self.losses = LossMeter()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the modalities' mean errors; ValueError for one that is not finite."""
        errors = velocity_errors(model, inputs)
        weights = self.args.modality_weights
        loss = torch.stack([weights[name] * error.mean() for name, error in errors.items()]).sum()
        self.check_finite(loss, inputs["clip_id"], "lower learning_rate")
        self.losses.add(errors, inputs["timestep"] / NUM_TRAIN_TIMESTEPS)
        tokens = self.network.config.num_tokens({name: inputs[name].shape[2:] for name in errors})
        self.speed.tokens += tokens * len(inputs["timestep"])
        return (loss, errors) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create transformers' AdamW (published), or Muon."""
        if self.optimizer is None and self.args.optimizer == "muon":
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ValueError("optimizer is 'muon', which needs whole matrices: use 'adamw' with FSDP or DeepSpeed.")
            self.optimizer = Muon(self.model, self.args.learning_rate, hidden=self.network.blocks)
        return super().create_optimizer(model)

    def measured(self) -> dict[str, float]:
        return self.losses.drain(self.sum_over_processes)

    def evaluation_losses(self) -> dict[str, float]:
        """Return `eval_loss` and its parts on `eval_dataset`, each clip with the same draws every time."""
        if not len(self.eval_dataset):
            return {}
        meter, model = LossMeter(), self.model_wrapped
        model.eval()
        for batch in self._eval_loader():
            inputs = self._prepare_inputs(batch)
            with self.compute_loss_context_manager():
                meter.add(velocity_errors(model, inputs), inputs["timestep"] / NUM_TRAIN_TIMESTEPS)
        model.train()
        reshard(model)
        means = meter.drain(self.sum_over_processes)
        weights = self.args.modality_weights
        loss = sum(weight * means[f"loss/{name}"] for name, weight in weights.items() if f"loss/{name}" in means)
        return {"eval_loss": loss} | {f"eval_{name}": value for name, value in means.items()}

    def _eval_loader(self) -> DataLoader:
        dataset: Any = self.eval_dataset
        sampler = batch_sampler(dataset, self.args, self.network.config, keep_all=True)
        return self.accelerator.prepare(self.loader(dataset, sampler, dataset.collator(self.collate)))

    def _prepare_inputs(self, inputs: Any) -> dict[str, Any]:
        """Encode clips that are not encoded yet, then move the batch to the device."""
        if isinstance(inputs, list):
            inputs = self.collate(self.train_dataset.encode(inputs))
        return super()._prepare_inputs(inputs)


def velocity_errors(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the mean squared velocity error per sample (B,) by modality, for a batch of `FlowCollator`."""
    names = [name for name in MODALITIES if name in batch]
    noisy = {name: add_noise(batch[name], batch[f"{name}_noise"], batch["timestep"]) for name in names}
    output = model(
        video=noisy.get("video"),
        audio=noisy.get("audio"),
        timestep=batch["timestep"],
        text=batch["text"],
        text_mask=batch["text_mask"],
        num_frames=batch["num_frames"],
    )
    errors = {}
    for name in names:
        target = velocity_target(batch[name], batch[f"{name}_noise"])
        errors[name] = (getattr(output, name).float() - target).square().flatten(1).mean(1)
    return errors


def _postfix(logs: Mapping[str, Any]) -> dict[str, str]:
    shown = {name: logs[f"loss/{name}"] for name in MODALITIES if f"loss/{name}" in logs}
    return {name: f"{value:.3f}" for name, value in shown.items()}
