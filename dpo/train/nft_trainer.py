"""The trainer of negative-aware fine-tuning on stored candidates: one forward pass for the policy, one for the old one.

The old policy, which made the candidates, is the network as it was at the start; it is the reference too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from dpo.data.group_batches import GroupBatchSampler
from dpo.data.group_dataset import GroupCollator, GroupDataset
from dpo.data.schema import MODALITIES
from dpo.loss.nft import NFTLoss, nft_loss
from dpo.loss.reference import velocities
from dpo.train.advantages import CandidateAdvantages, candidate_advantages, evaluation_advantages
from dpo.train.callbacks import DistanceAlarms
from dpo.train.config import NFTConfig
from dpo.train.preference_trainer import PreferenceTrainer, checked_network, noisy_rows, trained
from model.data.latent_dataset import batch_size_of
from model.flow import NUM_TRAIN_TIMESTEPS
from model.javisdit.network.config import JointDiTConfig
from model.javisdit.network.transformer import JointDiT

ALARM_WINDOW = 50  # steps


class NFTTrainer(PreferenceTrainer):
    """Negative-aware fine-tuning of an adapter, or of the whole network with a frozen copy as the old policy.

    Log lines contain the metrics of `nft_loss`, the main ones also by noise level, and `grad_share/<modality>`.
    `signal/<modality>` is the mean of its metric `probe`, and `probe/<modality>` the same divided by the mean
    `distance/old`: how much of a step served the rewards.
    """

    args: NFTConfig
    train_dataset: GroupDataset
    by_sigma = ("error/policy", "error/old", "distance/old", "probe")

    def __init__(
        self,
        model: JointDiT | PeftModel,
        args: NFTConfig,
        train_dataset: GroupDataset,
        *,
        eval_dataset: GroupDataset | None = None,
        peft_config: LoraConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        """Compute the advantages, check the data against the model, and set up training.

        Args:
            model: a `JointDiT`, which is trained in full or, with `peft_config`, gets a new adapter; or a `PeftModel`,
                whose trainable adapter is trained. The old policy of a `PeftModel` is the model without this adapter,
                or with the adapter `dpo.loss.lora.REFERENCE_ADAPTER` if there is one.
            args: the settings.
            train_dataset: the scored candidates.
            eval_dataset: scored candidates of other prompts, for the probe.
            peft_config: configuration of a new adapter.
            callbacks: callbacks in addition to the log and the alarms.

        Raises:
            ValueError: if the settings contradict the model or the scores, or the data does not fit the model.
        """
        network = checked_network(model, train_dataset, eval_dataset)
        self.advantages = candidate_advantages(train_dataset, args)
        if eval_dataset is not None:
            self.eval_advantages = evaluation_advantages(eval_dataset, args, self.advantages)
        policy = trained(model, peft_config, args.seed)
        super().__init__(
            policy,
            args,
            train_dataset,
            group_sampler(train_dataset, args, self.advantages, network.config, args.world_size),
            _collator(args, train_dataset, self.advantages.trained, args.shared_draws, network),
            copies=not isinstance(policy, PeftModel),
            postfix=_distances,
            eval_dataset=eval_dataset,
            callbacks=[DistanceAlarms(ALARM_WINDOW), *(callbacks or [])],
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, NFTLoss]:
        """Return the mean loss of a batch of `GroupCollator`. Raises ValueError if it is not finite."""
        noisy, target = noisy_rows(inputs)
        old = self.reference(noisy)
        policy = velocities(model, noisy)
        result = self._loss(policy, old, target, inputs)
        loss = result.loss.mean()
        self.check_finite(loss, [f"candidate {name!r}" for name in inputs["candidate_id"]], "lower learning_rate")
        self.record(result.metrics, policy, inputs)
        return (loss, result) if return_outputs else loss

    def measured(self) -> dict[str, float]:
        """Return the metrics since the last log line."""
        return with_probe(super().measured())

    def evaluation_losses(self) -> dict[str, float]:
        """Return the metrics on `eval_dataset`, as `eval_<metric>`, with the probe as `eval_probe/<modality>`."""
        return with_probe(super().evaluation_losses(), "eval_")

    def evaluation_metrics(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the loss's metrics (B,) on a batch of candidates that are not trained on."""
        noisy, target = noisy_rows(inputs)
        with self.compute_loss_context_manager():
            old, policy = self.reference(noisy), velocities(self.model_wrapped, noisy)
        return self._loss(policy, old, target, inputs).metrics

    def eval_loader(self) -> DataLoader:
        """Return the loader of `eval_dataset`: draws shared by each group, and advantages without mode and shuffle."""
        args, dataset, advantages = self.args, self.eval_dataset, self.eval_advantages
        sizes = batch_size_of(dataset, args, self.network.config)
        sampler = GroupBatchSampler(_labels(dataset, advantages), dataset.prompt_ids, sizes, args.seed)
        collate = _collator(args, dataset, advantages.routed, True, self.network)
        return self.accelerator.prepare(self.loader(dataset, sampler, collate))

    def _loss(
        self,
        policy: Mapping[str, Tensor],
        old: Mapping[str, Tensor],
        target: Mapping[str, Tensor],
        inputs: Mapping[str, Any],
    ) -> NFTLoss:
        args = self.args
        return nft_loss(
            policy,
            old,
            target,
            inputs["timestep"] / NUM_TRAIN_TIMESTEPS,
            inputs["advantage"],
            beta=args.nft_beta,
            clip=args.adv_clip,
            form=args.nft_form,
            prediction=args.nft_prediction,
            modality_weights=args.modality_weights,
            kl_weight=args.kl_weights,
            reference=old if any(args.kl_weights.values()) else None,
        )


def group_sampler(
    dataset: GroupDataset,
    args: NFTConfig,
    advantages: CandidateAdvantages,
    config: JointDiTConfig,
    num_processes: int,
) -> GroupBatchSampler:
    """Return the sampler of the candidates with advantages; with shared_draws, a step holds whole groups.

    Raises:
        ValueError: with shared_draws, if batches or steps would cut groups.
    """
    sampler = GroupBatchSampler(
        _labels(dataset, advantages),
        dataset.prompt_ids,
        batch_size_of(dataset, args, config),
        args.seed,
        args.dataloader_drop_last,
        whole=args.shared_draws,
        fit=args.tokens_per_batch is not None,
    )
    batches, needed = args.gradient_accumulation_steps * num_processes, sampler.batches_per_step
    if batches % needed:
        raise ValueError(
            f"A group is spread over {needed} batches, but a step has {batches} (gradient_accumulation_steps "
            f"{args.gradient_accumulation_steps} x {num_processes} processes), and shared_draws needs whole groups in "
            f"a step: give a multiple of {needed}, or set shared_draws to false."
        )
    return sampler


def with_probe(means: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    """Return means of the metrics of `nft_loss` with `probe` renamed to `signal`, and `probe` divided by the distance.

    A policy that has not moved has no probe.
    """
    named = {name.replace(f"{prefix}probe/", f"{prefix}signal/"): value for name, value in means.items()}
    for name in MODALITIES:
        if distance := means.get(f"{prefix}distance/old/{name}"):
            named[f"{prefix}probe/{name}"] = means[f"{prefix}probe/{name}"] / distance
    return named


def _labels(dataset: GroupDataset, advantages: CandidateAdvantages) -> list[Any]:
    """Return the label of each row for the sampler; None where a score failed."""
    return [label if usable else None for label, usable in zip(dataset.shapes, advantages.usable, strict=True)]


def _collator(
    args: NFTConfig, dataset: GroupDataset, advantages: Mapping[str, Any], shared_draws: bool, network: JointDiT
) -> GroupCollator:
    text_len = network.config.text_len
    return GroupCollator(
        args.seed, dataset.negative_text, advantages, shared_draws, args.text_dropout, args.shift_scale, text_len
    )


def _distances(logs: Mapping[str, Any]) -> dict[str, str]:
    """Return the numbers for the progress bar: the loss and the distances from the old policy."""
    distances = {f"distance/{name}": f"{logs[f'distance/old/{name}']:.2e}" for name in MODALITIES}
    return {"loss": f"{logs['loss']:.3f}"} | distances
