"""The trainer of joint audio-video DPO: one forward pass for winner and loser, and one for the reference model."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from dpo.data.curriculum import training_sampler
from dpo.data.dataset import PairCollator, PairDataset
from dpo.data.schema import MODALITIES
from dpo.loss.av_dpo import AVDPOLoss, av_dpo_loss
from dpo.loss.errors import velocity_error
from dpo.loss.local_dpo import add_region_loss, region_loss
from dpo.loss.lora import share_dropout
from dpo.loss.reference import REFERENCE_NAME, adapter_reference, velocities
from dpo.loss.reference_errors import FOLDER_NAME, ReferenceErrors, identity
from dpo.train.callbacks import ReferenceMover, TrainingAlarms
from dpo.train.config import AVDPOConfig
from dpo.train.preference_trainer import PreferenceTrainer, checked_network, noisy_rows, trained
from model.data.batches import Steps
from model.data.latent_dataset import batch_sampler
from model.javisdit.network.transformer import JointDiT
from model.train.ema import load_weights, save_weights


class AVDPOTrainer(PreferenceTrainer):
    """Preference training of an adapter, or of the whole network with a frozen copy as the reference.

    Log lines contain the metrics of `av_dpo_loss`, the main ones also by noise level
    (`rewards/accuracies/<modality>/sigma_0.2-0.4`, 0 = data, 1 = noise), and `grad_share/<modality>`.
    """

    args: AVDPOConfig
    train_dataset: PairDataset
    by_sigma = (
        *("rewards/margins", "rewards/accuracies"),
        *("error/chosen", "error/rejected", "ref_error/chosen", "ref_error/rejected"),
    )

    def __init__(
        self,
        model: JointDiT | PeftModel,
        args: AVDPOConfig,
        train_dataset: PairDataset,
        *,
        eval_dataset: PairDataset | None = None,
        peft_config: LoraConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        """Check the data against the model, and set up training.

        Args:
            model: a `JointDiT`, which is trained in full or, with `peft_config`, gets a new adapter; or a `PeftModel`,
                whose trainable adapter is trained. The reference of a `PeftModel` is the model without this adapter,
                or with the adapter `dpo.loss.lora.REFERENCE_ADAPTER` if there is one.
            args: the settings.
            train_dataset: the training pairs.
            eval_dataset: held-out pairs, measured at every evaluation with the same draws.
            peft_config: configuration of a new adapter.
            callbacks: callbacks in addition to the log and the alarms.

        Raises:
            ValueError: if the settings contradict the model, or the data does not fit it.
        """
        network = checked_network(model, train_dataset, eval_dataset)
        policy = trained(model, peft_config, args.seed)
        has_adapter = isinstance(policy, PeftModel)
        copies = not has_adapter and not args.precompute_ref_errors
        if args.sync_ref_model and not copies:
            raise ValueError("sync_ref_model moves a frozen copy of the network, but there is none: train in full.")
        if eval_dataset is not None and not copies and not has_adapter:
            raise ValueError("eval_dataset needs a reference in memory: set precompute_ref_errors to false.")
        self.reference_errors: ReferenceErrors | None = None
        if args.precompute_ref_errors:  # now, while the weights are still those of the reference
            draws = args.seed, args.text_dropout, args.shift_scale, train_dataset.fingerprint
            self._reference_identity = identity(network, *draws)
        mean_margin = train_dataset.mean_margin() if args.margin_weighting else None
        super().__init__(
            share_dropout(policy) if isinstance(policy, PeftModel) else policy,
            args,
            train_dataset,
            training_sampler(train_dataset, args, network.config, args.world_size),
            _collator(args, train_dataset, network, mean_margin),
            copies=copies,
            postfix=_margins,
            eval_dataset=eval_dataset,
            callbacks=[_alarms(args), *(callbacks or [])],
        )
        if args.sync_ref_model:
            self.add_callback(ReferenceMover(self, args))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as transformers does; with precompute_ref_errors, compute the reference's errors first."""
        if self.args.precompute_ref_errors:
            self.reference_errors = self._precompute_reference_errors()
        return super().train(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, AVDPOLoss]:
        """Return the mean preference loss of a batch of `PairCollator`. Raises ValueError if it is not finite."""
        noisy, target = noisy_pairs(inputs)
        if self.reference_errors is None:
            reference = self.reference(noisy)
        else:
            reference = self.reference_errors.errors(inputs["pair_id"], inputs["epoch"], inputs["timestep"].device)
        policy = velocities(model, noisy)
        result = self._loss(policy, reference, target, inputs["weight"], inputs)
        loss = result.loss.mean()
        self.check_finite(loss, [f"pair {name!r}" for name in inputs["pair_id"]], "lower learning_rate or the betas")
        self.record(result.metrics, policy, inputs)
        return (loss, result) if return_outputs else loss

    def evaluation_metrics(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the loss and its metrics (B,) on a batch of pairs that are not trained on."""
        noisy, target = noisy_pairs(inputs)
        with self.compute_loss_context_manager():
            reference, policy = self.reference(noisy), velocities(self.model_wrapped, noisy)
        result = self._loss(policy, reference, target, torch.ones_like(inputs["weight"]), inputs)
        return {"loss": result.loss} | result.metrics

    def eval_loader(self) -> DataLoader:
        args, dataset = self.args, self.eval_dataset
        collate = _collator(args, dataset, self.network)
        sampler = batch_sampler(dataset, args, self.network.config, keep_all=True)
        return self.accelerator.prepare(self.loader(dataset, sampler, collate))

    def _loss(
        self,
        policy: Mapping[str, Tensor],
        reference: Mapping[str, Tensor],
        target: Mapping[str, Tensor],
        pair_weight: Tensor,
        batch: Mapping[str, Any],
    ) -> AVDPOLoss:
        args = self.args
        settings: dict[str, Any] = {
            "beta": args.beta,
            "modality_weights": args.modality_weights,
            "fm_weight": args.fm_weights,
            "loss_type": args.loss_type,
            "label_smoothing": args.label_smoothing,
            "winner_preserving_mu": args.winner_preserving_mu,
        }
        loss = av_dpo_loss(policy, reference, target, **settings, pair_weight=pair_weight)
        if not args.region_weight:
            return loss
        masks, strength = batch.get("masks", {}), batch.get("strength", pair_weight)
        region = region_loss(policy, reference, target, masks, strength, **settings)
        return add_region_loss(loss, region, args.region_weight, pair_weight)

    def _precompute_reference_errors(self) -> ReferenceErrors:
        """Compute the errors of the network before the first step, at every draw of the run.

        Each process uses the batches on which it will train, so the numbers equal those of a frozen copy. During the
        computation, the network is whole on each device.
        """
        folder = Path(str(self.args.output_dir)) / FOLDER_NAME / self._reference_identity
        known = ReferenceErrors(folder, self.args.process_index)
        loader = self.get_train_dataloader()
        steps = Steps.of(len(self.sampler), self.args.world_size, self.args)
        left = steps.total * self.args.gradient_accumulation_steps  # remaining batches
        home = next(self.model.parameters()).device
        self.model.to(self.args.device).eval()
        for epoch in range(-(-steps.total // steps.per_epoch)):
            self.sampler.set_epoch(epoch)
            left -= self._precompute_epoch(known, loader, left)
        self.model.to(home).train()
        self.accelerator.wait_for_everyone()
        known.read()
        return known

    @torch.no_grad()
    def _precompute_epoch(self, known: ReferenceErrors, loader: DataLoader, left: int) -> int:
        """Compute the missing errors of the first `left` batches of an epoch, and return the number of batches."""
        count = 0
        for batch in islice(loader, left):
            count += 1
            if known.has(batch["pair_id"], batch["epoch"]):
                continue
            inputs = self._prepare_inputs(batch)
            noisy, target = noisy_pairs(inputs)
            with self.compute_loss_context_manager():
                predicted = self._start_velocities(noisy)
            errors = {name: velocity_error(predicted[name], target[name]) for name in MODALITIES}
            known.add(batch["pair_id"], batch["epoch"], errors)
        return count

    def _start_velocities(self, noisy: Mapping[str, Any]) -> dict[str, Tensor]:
        model = self.model
        return adapter_reference(model, noisy) if isinstance(model, PeftModel) else velocities(model, noisy)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.frozen_copy is not None and self.args.sync_ref_model:
            save_weights(self.frozen_copy.weights(), Path(output_dir) / REFERENCE_NAME, self.args.should_save)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.frozen_copy is not None and self.args.sync_ref_model:
            load_weights(self.frozen_copy.weights(), Path(checkpoint) / REFERENCE_NAME)


def noisy_pairs(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the network's arguments for a batch of `PairCollator`, and the target velocities, all (2B, ...).

    Winner and loser of a pair are rows i and B + i; they have the same noise, timestep and text.
    """
    return noisy_rows(batch, clips_per_row=2)


def _alarms(args: AVDPOConfig) -> TrainingAlarms:
    return TrainingAlarms(args.winner_error_window, [name for name, beta in args.beta.items() if beta])


def _collator(
    args: AVDPOConfig, dataset: PairDataset, network: JointDiT, mean_margin: float | None = None
) -> PairCollator:
    text_len = network.config.text_len
    return PairCollator(
        args.seed, dataset.negative_text, args.text_dropout, args.shift_scale, mean_margin, text_len=text_len
    )


def _margins(logs: Mapping[str, Any]) -> dict[str, str]:
    """Return the numbers for the progress bar: the loss and the margins."""
    margins = {f"margin/{name}": f"{logs[f'rewards/margins/{name}']:+.3f}" for name in MODALITIES}
    return {"loss": f"{logs['loss']:.3f}"} | margins
