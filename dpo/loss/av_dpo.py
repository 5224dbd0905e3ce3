"""The preference loss of joint audio-video DPO (JavisDiT++, arXiv 2602.19163; Diffusion-DPO, arXiv 2311.12908)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpo.loss.errors import PerModality, check_positions, per_modality, residual, velocity_error
from dpo.loss.loss_types import LossType, check_objective
from dpo.loss.objectives import preference_loss, safe_loser_scale


@dataclass(frozen=True, eq=False)
class AVDPOLoss:
    """Loss per pair, and its parts as metrics.

    Attributes:
        loss: (B,) float32, with gradient; reduce it with `mean()`.
        metrics: name -> (B,) detached tensor. Per modality m: `rewards/{chosen,rejected,margins,accuracies}/<m>`,
            `error/{chosen,rejected}/<m>`, `ref_error/{chosen,rejected}/<m>`, `loss/{dpo,fm}/<m>` and, if
            winner_preserving_mu is set, `loser_scale/<m>`. TRL's names without a modality, `rewards/{chosen,rejected,
            margins}`, are the weighted sums over modalities; `rewards/accuracies` is 1 where the summed margin is
            positive.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


def av_dpo_loss(
    policy: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    *,
    beta: PerModality,
    modality_weights: PerModality | None = None,
    fm_weight: PerModality = 0.1,
    loss_type: LossType = "sigmoid",
    label_smoothing: float = 0.0,
    winner_preserving_mu: float | None = None,
    mask: Mapping[str, Tensor] | None = None,
    pair_weight: Tensor | None = None,
) -> AVDPOLoss:
    """Compute the DPO loss on velocity errors, with one preference and one flow-matching term per modality.

    With e = mean((prediction - target)^2) of one sample, w the winner (chosen) and l the loser (rejected):

        d_m    = (e_w - e_l)_policy - (e_w - e_l)_reference
        h_m    = -beta_m / 2 * d_m                                   implicit reward margin
        loss_m = f(h_m) + fm_weight_m * e_w,policy
        loss   = pair_weight * sum_m weight_m * loss_m

    f is `dpo.loss.objectives.preference_loss`; the published loss is -log sigmoid(h).

    Args:
        policy: modality -> (2B, ...) predicted velocities; the B chosen samples first, then the B rejected ones.
        reference: modality -> (2B, ...) velocities predicted by the frozen reference, or (2B,) its precomputed
            errors e.
        target: modality -> (2B, ...) true velocities.
        beta: strength of the preference, >= 0; one number or one per modality (published: video 3000, audio 1000).
        modality_weights: weight of each modality's loss, 1 by default.
        fm_weight: weight of the winner's flow-matching error, >= 0; one number or one per modality (published 0.1).
        loss_type: "sigmoid", "robust", "ipo" or "hinge".
        label_smoothing: assumed share of pairs with swapped labels, in [0, 0.5); only for "sigmoid" and "robust".
        winner_preserving_mu: scales the loser's gradient by `safe_loser_scale`, so that, to first order, the winner's
            error does not rise; None leaves the gradient unscaled. The value of the loss does not change.
        mask: modality -> (2B, ...), broadcast to `target`: 1 for a real latent, 0 for padding, which is left out of
            the mean. A modality without a mask has no padding.
        pair_weight: (B,) weight of each pair.

    Errors are reduced in float32 (float64 for float64 predictions), for any precision of the predictions.

    Raises:
        ValueError: if modalities or shapes disagree, the batch size is odd, or a setting is out of range.
    """
    masks = mask or {}
    _check_inputs(policy, reference, target, masks, pair_weight)
    check_objective(loss_type, label_smoothing, winner_preserving_mu)
    betas = per_modality("beta", beta, target)
    weights = per_modality("modality_weights", 1.0 if modality_weights is None else modality_weights, target)
    fm_weights = per_modality("fm_weight", fm_weight, target)

    total: Tensor | float = 0.0
    metrics: dict[str, Tensor] = {}
    for name, true in target.items():
        velocity, real = policy[name], masks.get(name)
        winner, loser = velocity_error(velocity, true, real).chunk(2)  # (B,), (B,)
        ref_winner, ref_loser = _reference_error(reference[name], true, real).chunk(2)
        pushed = loser
        if winner_preserving_mu is not None:
            scale = safe_loser_scale(*_gradients(velocity, true, real), winner_preserving_mu)
            pushed = loser.detach() + scale * (loser - loser.detach())  # same value, scaled gradient
            metrics[f"loser_scale/{name}"] = scale
        margin = -0.5 * betas[name] * ((winner - pushed) - (ref_winner - ref_loser))
        preference = preference_loss(margin, loss_type, label_smoothing)
        total = total + weights[name] * (preference + fm_weights[name] * winner)
        metrics |= {f"loss/dpo/{name}": preference, f"loss/fm/{name}": winner}
        metrics |= _rewards(name, betas[name], winner, loser, ref_winner, ref_loser)
    assert isinstance(total, Tensor)
    if pair_weight is not None:
        total = pair_weight.to(total) * total
    metrics |= _summed_rewards(metrics, weights)
    return AVDPOLoss(total, {name: value.detach() for name, value in metrics.items()})


def _gradients(prediction: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the gradients of the winners' and the losers' errors by their predictions, each (B, ...)."""
    gradient = 2 * residual(prediction.detach(), target)
    if mask is None:
        gradient = gradient / gradient[0].numel()
    else:
        real = mask.to(gradient).expand_as(gradient)
        gradient = gradient * real / real.flatten(1).sum(1).view(-1, *[1] * (gradient.ndim - 1))
    winner, loser = gradient.chunk(2)
    return winner, loser


def _reference_error(reference: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    return reference if reference.ndim == 1 else velocity_error(reference, target, mask)


def _rewards(
    name: str, beta: float, winner: Tensor, loser: Tensor, ref_winner: Tensor, ref_loser: Tensor
) -> dict[str, Tensor]:
    """Return the implicit rewards of a modality under TRL's names, and the errors behind them, each (B,)."""
    difference = (winner - loser) - (ref_winner - ref_loser)
    return {
        f"rewards/chosen/{name}": -0.5 * beta * (winner - ref_winner),
        f"rewards/rejected/{name}": -0.5 * beta * (loser - ref_loser),
        f"rewards/margins/{name}": -0.5 * beta * difference,
        f"rewards/accuracies/{name}": (difference < 0).float(),
        f"error/chosen/{name}": winner,
        f"error/rejected/{name}": loser,
        f"ref_error/chosen/{name}": ref_winner,
        f"ref_error/rejected/{name}": ref_loser,
    }


def _summed_rewards(metrics: dict[str, Tensor], weights: dict[str, float]) -> dict[str, Tensor]:
    summed = {
        f"rewards/{side}": torch.stack([weights[name] * metrics[f"rewards/{side}/{name}"] for name in weights]).sum(0)
        for side in ("chosen", "rejected", "margins")
    }
    return summed | {"rewards/accuracies": (summed["rewards/margins"] > 0).float()}


def _check_inputs(
    policy: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    pair_weight: Tensor | None,
) -> None:
    if not target or not set(policy) == set(reference) == set(target) >= set(masks):
        raise ValueError(
            f"Modalities differ: policy {sorted(policy)}, reference {sorted(reference)}, target {sorted(target)}, mask "
            f"{sorted(masks)}. Pass the same non-empty set in the first three, and masks for any of them."
        )
    for name, value in target.items():
        _check_modality(name, policy[name], reference[name], value, masks.get(name))
    batches = {value.shape[0] for value in target.values()}
    if len(batches) > 1:
        raise ValueError(
            f"The modalities have {sorted(batches)} samples, but every pair needs all modalities: pass equally many."
        )
    num_pairs = batches.pop() // 2
    if pair_weight is not None and tuple(pair_weight.shape) != (num_pairs,):
        raise ValueError(f"pair_weight has shape {tuple(pair_weight.shape)} for {num_pairs} pairs: give one per pair.")


def _check_modality(name: str, policy: Tensor, reference: Tensor, target: Tensor, mask: Tensor | None) -> None:
    shape = tuple(target.shape)
    shapes = {tuple(policy.shape), shape} | ({tuple(reference.shape)} - {shape[:1]})  # (2B,): precomputed errors
    if len(shapes) > 1:
        raise ValueError(
            f"{name} has shapes {sorted(shapes)} in policy, reference and target, so their errors "
            "cannot be compared: predict all three for the same latents."
        )
    if target.ndim < 2 or target.shape[0] == 0 or target.shape[0] % 2:
        raise ValueError(
            f"{name} has shape {shape}, which does not split into pairs: "
            "stack B chosen samples and then B rejected ones along the first axis."
        )
    check_positions("mask", name, mask, shape)
