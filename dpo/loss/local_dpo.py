"""The region term of LocalDPO (arXiv 2601.04068): a preference on the error of the regions that were generated anew.

Source: docs/upstream/constructed_negatives.md, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from dpo.loss.av_dpo import AVDPOLoss
from dpo.loss.errors import PerModality, per_modality
from dpo.loss.loss_types import LossType, check_objective
from dpo.loss.objectives import preference_loss, safe_loser_scale

LEAST_STRENGTH, STRENGTH_SPREAD = 0.75, 0.15  # published: of the strengths of the Wan script, for all scripts
Over = Literal["sample", "batch"]


def region_loss(
    policy: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    strength: Tensor,
    *,
    beta: PerModality,
    modality_weights: PerModality = 1.0,
    fm_weight: PerModality = 0.1,
    loss_type: LossType = "sigmoid",
    label_smoothing: float = 0.0,
    winner_preserving_mu: float | None = None,
    over: Over = "sample",
) -> AVDPOLoss:
    """Compute the DPO loss on the errors of regions, for pairs whose members differ there alone.

    It is the loss of `dpo.loss.av_dpo.av_dpo_loss` with `region_error` in place of the error of the whole clip.

    Args:
        policy, reference, target: modality -> (2B, ...) velocities; the B chosen samples first, then the B rejected
            ones.
        masks: modality -> (B, 1, ...), broadcast along the channels: 1 where the loser was generated anew. Modalities
            without a mask have no region term.
        strength: (B,) share of the sampling steps by which the regions were generated anew.
        beta, modality_weights, fm_weight, loss_type, label_smoothing, winner_preserving_mu: as in `av_dpo_loss`.
        over: see `region_error`.

    Returns:
        The loss per pair (B,), and per modality m `region/{margins,accuracies}/<m>`, `region/error/{chosen,rejected}/
        <m>` and `region/loss/<m>`.

    Raises:
        ValueError: a mask without a region, masks of other shapes or modalities, or a setting out of range.
    """
    check_objective(loss_type, label_smoothing, winner_preserving_mu)
    _check_masks(target, masks)
    betas, weights, fm_weights = (
        per_modality(name, value, target)
        for name, value in (("beta", beta), ("modality_weights", modality_weights), ("fm_weight", fm_weight))
    )
    total: Tensor | float = 0.0
    metrics: dict[str, Tensor] = {}
    for name, mask in masks.items():
        errors = (region_error(velocity[name], target[name], mask, strength, over) for velocity in (policy, reference))
        (winner, loser), (ref_winner, ref_loser) = (error.chunk(2) for error in errors)
        pushed = loser
        if winner_preserving_mu is not None:
            residual = (policy[name].detach().float() - target[name]) * mask.repeat(2, *[1] * (mask.ndim - 1))
            pull, push = residual.chunk(2)  # the gradients of the errors, up to a factor that both have
            scale = safe_loser_scale(pull, push, winner_preserving_mu)
            pushed = loser.detach() + scale * (loser - loser.detach())  # same value, scaled gradient
        margin = -0.5 * betas[name] * ((winner - pushed) - (ref_winner - ref_loser))
        loss = preference_loss(margin, loss_type, label_smoothing) + fm_weights[name] * winner
        total = total + weights[name] * loss
        metrics |= {
            f"region/margins/{name}": margin,
            f"region/accuracies/{name}": (margin > 0).float(),
            f"region/error/chosen/{name}": winner,
            f"region/error/rejected/{name}": loser,
            f"region/loss/{name}": loss,
        }
    assert isinstance(total, Tensor)
    return AVDPOLoss(total, {name: value.detach() for name, value in metrics.items()})


def add_region_loss(loss: AVDPOLoss, region: AVDPOLoss, weight: float, pair_weight: Tensor) -> AVDPOLoss:
    """Return a loss with `weight` times the region term of each pair added, and the metrics of both."""
    total = loss.loss + weight * pair_weight.to(region.loss) * region.loss
    return replace(loss, loss=total, metrics=loss.metrics | region.metrics)


def region_error(prediction: Tensor, target: Tensor, mask: Tensor, strength: Tensor, over: Over = "sample") -> Tensor:
    """Return the error inside the regions per sample, (2B,), times the weight of the pair's strength.

    With M the mask and y the `strength_weight`, the published error is mean(M (prediction - target)^2) y |cells| / |M|.
    With `over` "sample", |cells| and |M| are those of the pair, so the error is y times the mean over its region.
    With "batch" they are sums over the batch, as in the release, whose scripts have one pair per batch: there a pair
    with a small region counts less than one with a large region.

    Args:
        prediction, target: (2B, C, ...).
        mask: (B, 1, ...).
        strength: (B,).
        over: "sample" or "batch".
    """
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    squared = (prediction.to(dtype) - target.to(dtype)).square()
    both = mask.to(dtype).repeat(2, *[1] * (mask.ndim - 1))
    share = both.flatten(1).mean(1) if over == "sample" else both.mean()
    return (squared * both).flatten(1).mean(1) * strength_weight(strength).to(dtype).repeat(2) / share


def strength_weight(strength: Tensor, least: float = LEAST_STRENGTH, spread: float = STRENGTH_SPREAD) -> Tensor:
    """Return the weight (B,) of a region's error by how much of it was generated: 1 + (strength - least) / spread."""
    return 1 + (strength - least) / spread


def _check_masks(target: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    if not masks or not set(masks) <= set(target):
        raise ValueError(
            f"Masks are given for {sorted(masks)}, but the data has {sorted(target)}: give a mask for one of these or "
            "more, or no region term."
        )
    for name, mask in masks.items():
        pairs, channels, *size = target[name].shape
        if tuple(mask.shape) != (pairs // 2, 1, *size):
            raise ValueError(
                f"The mask of {name} has shape {tuple(mask.shape)}, but latents of {tuple(target[name].shape)} need "
                f"{(pairs // 2, 1, *size)}: one mask per pair, the same for all {channels} channels."
            )
        if not mask.flatten(1).any(1).all():
            raise ValueError(
                f"The mask of {name} is empty for at least one pair, so its mean error would be 0 / 0: leave out such "
                "pairs."
            )
