"""The trainer of joint audio-video DPO: one forward pass for winner and loser, the reference by adapter off."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINING_ARGS_NAME

from dpo.callbacks import JsonlLog, MarginProgress, WinnerErrorAlarm
from dpo.config import AVDPOConfig
from dpo.data import PairCollator, PairDataset, ShapeBucketSampler
from dpo.lora import attach_lora, reference_model, share_dropout
from dpo.loss import AVDPOLoss, av_dpo_loss
from dpo.schema import MODALITIES
from model.flow import NUM_TRAIN_TIMESTEPS, add_noise, velocity_target
from model.transformer import JointDiT

NUM_SIGMA_BINS = 5


class AVDPOTrainer(Trainer):
    """`transformers.Trainer` on preference pairs; checkpoints, resume, accelerate and schedules are its own.

    Logs hold, averaged since the last line, the metrics of `av_dpo_loss` and the accuracy per noise level
    (`rewards/accuracies/<modality>/sigma_0.2-0.4`, 0 = data, 1 = noise).
    """

    args: AVDPOConfig
    model: PeftModel
    train_dataset: PairDataset
    loss_is_scaled_for_ga = False  # compute_loss returns the mean over a micro-batch

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
        network = cast(JointDiT, model.get_base_model()) if isinstance(model, PeftModel) else model
        train_dataset.check_network(network)
        train_dataset.check_finite()
        if args.activation_checkpointing or args.gradient_checkpointing:
            # The network does this itself; transformers looks for a method that only its own models have.
            network.gradient_checkpointing = True
            args.activation_checkpointing = args.gradient_checkpointing = False
        collator = PairCollator(args.seed, train_dataset.negative_text, args.text_dropout, args.shift_scale)
        watchers = [JsonlLog(), WinnerErrorAlarm(args.winner_error_window), EpochSetter(self), *(callbacks or [])]
        super().__init__(
            _adapted(model, peft_config, args.seed), args, collator, train_dataset=train_dataset, callbacks=watchers
        )
        self.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
        if not args.disable_tqdm:
            self.add_callback(MarginProgress())
        self.sampler = ShapeBucketSampler(
            train_dataset.shapes, args.train_batch_size, args.seed, args.dataloader_drop_last
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
        if not torch.isfinite(loss):
            raise ValueError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}, pairs {inputs['prompt_id']}: the run "
                "has diverged; lower learning_rate or the betas, and go on from the last checkpoint."
            )
        self._pending.append(result.metrics | {"sigma": inputs["timestep"] / NUM_TRAIN_TIMESTEPS})
        return (loss, result) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader:
        """Batches of one shape each."""
        args = self.args
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.sampler,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            persistent_workers=args.dataloader_persistent_workers,
        )
        return self.accelerator.prepare(loader)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the preference metrics of the steps since the last line."""
        if self._pending:
            logs = logs | self._drain_metrics()
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes the adapter.  peft would look the base model up on the Hub, to see whether its vocabulary grew."""
        folder = output_dir or str(self.args.output_dir)
        self.model.save_pretrained(
            folder, state_dict=state_dict, is_main_process=self.args.should_save, save_embedding_layers=False
        )
        torch.save(self.args, Path(folder) / TRAINING_ARGS_NAME)

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


class EpochSetter(TrainerCallback):
    """Tells the sampler its epoch, also in a resumed run, where transformers reaches only unwrapped samplers."""

    def __init__(self, trainer: AVDPOTrainer) -> None:
        """Takes the trainer, whose sampler is made after its callbacks."""
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.sampler.set_epoch(int(state.epoch or 0))


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
        adapted = attach_lora(model, peft_config, seed)
    # transformers writes `use_cache` into the config of any model that has one; ours is frozen and has no such field.
    adapted.config = None  # type: ignore[assignment]
    return adapted


def _velocities(model: nn.Module, arguments: dict[str, Any]) -> dict[str, Tensor]:
    output = model(**arguments)
    return {name: getattr(output, name) for name in MODALITIES}


def _accuracy_by_sigma(values: dict[str, Tensor], sigma: Tensor) -> dict[str, float]:
    bins = (sigma * NUM_SIGMA_BINS).long().clamp(max=NUM_SIGMA_BINS - 1)
    accuracies = {}
    for name in MODALITIES:
        key = f"rewards/accuracies/{name}"
        for i in bins.unique().tolist():
            label = f"sigma_{i / NUM_SIGMA_BINS:.1f}-{(i + 1) / NUM_SIGMA_BINS:.1f}"
            accuracies[f"{key}/{label}"] = values[key][bins == i].mean().item()
    return accuracies
