"""The base of the trainers of stored preferences: the policy, its reference, evaluation and metrics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from dpo.data.prepared import PreparedRows
from dpo.data.schema import MODALITIES
from dpo.loss.reference import FrozenCopy, adapter_reference
from dpo.train.callbacks import ReferenceKeeper
from dpo.train.metrics import GradientShares, PreferenceMeter
from model.data.batches import BucketBatchSampler
from model.flow import NUM_TRAIN_TIMESTEPS, add_noise, velocity_target
from model.javisdit.network.transformer import JointDiT
from model.lora import attach_adapter
from model.train.arguments import JointTrainingArguments
from model.train.joint_trainer import JointTrainer, network_of, reshard

Collator = Callable[[list[Any]], Any]


class PreferenceTrainer(JointTrainer):
    """Trainer of an adapter, or of the whole network, against the predictions of the network as it was at the start.

    With an adapter, the reference is the network without it; else it is a frozen copy.
    """

    by_sigma: ClassVar[Collection[str]]  # metrics `<name>/<modality>` that are also logged by noise level

    def __init__(
        self,
        model: JointDiT | PeftModel,
        args: JointTrainingArguments,
        train_dataset: PreparedRows[Any],
        sampler: BucketBatchSampler,
        collator: Collator,
        *,
        copies: bool,
        postfix: Callable[[Mapping[str, Any]], dict[str, str]],
        eval_dataset: PreparedRows[Any] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        """Set up training of a model that `trained` returned; `copies` keeps a frozen copy of it as the reference."""
        backend = (args.torch_compile_backend or "inductor") if args.torch_compile else None
        self.frozen_copy = FrozenCopy(network_of(model), backend) if copies else None
        self.meter, self.shares = PreferenceMeter(self.by_sigma), GradientShares()
        super().__init__(
            model,
            args,
            train_dataset,
            sampler,
            collator,
            postfix=postfix,
            callbacks=callbacks,
            eval_dataset=() if eval_dataset is None else eval_dataset,  # an evaluation may consist of samples only
        )
        if self.frozen_copy is not None:
            self.frozen_copy.place(self)
            self.add_callback(ReferenceKeeper(self))

    def evaluation_metrics(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the metrics (B,) of a batch of `eval_loader`."""
        raise NotImplementedError

    def eval_loader(self) -> DataLoader:
        """Return the loader of `eval_dataset`, whose draws are the same at every evaluation."""
        raise NotImplementedError

    def measured(self) -> dict[str, float]:
        """Return the metrics since the last log line."""
        return self.meter.drain(self.sum_over_processes) | self.shares.drain(self.sum_over_processes)

    def evaluation_losses(self) -> dict[str, float]:
        """Return the metrics on `eval_dataset`, as `eval_<metric>`."""
        if not len(self.eval_dataset):
            return {}
        meter, model = PreferenceMeter(self.by_sigma), self.model_wrapped
        model.eval()
        for batch in self.eval_loader():
            inputs = self._prepare_inputs(batch)
            meter.add(self.evaluation_metrics(inputs), inputs["timestep"] / NUM_TRAIN_TIMESTEPS)
        model.train()
        reshard(model)
        return {f"eval_{name}": value for name, value in meter.drain(self.sum_over_processes).items()}

    def reference(self, noisy: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the reference's predictions for a batch: modality -> velocity (B, ...)."""
        if self.frozen_copy is not None:
            return self.frozen_copy.predict(noisy)
        return adapter_reference(self.accelerator.unwrap_model(self.model), noisy)

    def record(
        self, metrics: Mapping[str, Tensor], predictions: Mapping[str, Tensor], inputs: Mapping[str, Any]
    ) -> None:
        """Record the metrics of a step, the gradients of its predictions and its tokens for the next log line."""
        self.meter.add(metrics, inputs["timestep"] / NUM_TRAIN_TIMESTEPS)
        self.shares.watch(predictions)
        tokens = self.network.config.num_tokens({name: inputs[name].shape[2:] for name in MODALITIES})
        self.speed.tokens += tokens * len(inputs[MODALITIES[0]])


def checked_network(model: JointDiT | PeftModel, *datasets: PreparedRows[Any] | None) -> JointDiT:
    """Return the network of a model. Raises ValueError if the data does not fit it."""
    network = network_of(model)
    for dataset in filter(None, datasets):
        dataset.check_network(network)
        dataset.check_finite()
    return network


def trained(model: JointDiT | PeftModel, peft_config: LoraConfig | None, seed: int) -> JointDiT | PeftModel:
    """Return the model to train: with its own adapter, with a new one of `peft_config`, or in full.

    Raises:
        ValueError: if there is an adapter and `peft_config` would add another.
    """
    if isinstance(model, PeftModel):
        if peft_config is not None:
            raise ValueError("The model has an adapter, and peft_config would add another one: give only one of them.")
        return model
    if peft_config is not None:
        return attach_adapter(model, peft_config, seed)
    return model.requires_grad_(True).train()


def noisy_rows(batch: Mapping[str, Any], clips_per_row: int = 1) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the network's arguments for a batch, and the target velocities, all (clips_per_row * B, ...).

    The clips of row i are i, B + i, ...; they have the same noise, timestep and text.
    """
    timestep = batch["timestep"].repeat(clips_per_row)
    arguments = {
        "timestep": timestep,
        "text": batch["text"].repeat(clips_per_row, 1, 1),
        "text_mask": batch["text_mask"].repeat(clips_per_row, 1),
        "num_frames": batch["num_frames"],
    }
    target = {}
    for name in MODALITIES:
        noise = torch.cat([batch[f"{name}_noise"]] * clips_per_row)
        arguments[name] = add_noise(batch[name], noise, timestep)
        target[name] = velocity_target(batch[name], noise)
    return arguments, target
