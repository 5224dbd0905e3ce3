"""The preference loss of joint audio-video DPO (JavisDiT++, arXiv 2602.19163; Diffusion-DPO, arXiv 2311.12908)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpo.loss.loss_types import LossType, check_objective
from dpo.loss.objectives import preference_loss, safe_loser_scale

PerModality = float | Mapping[str, float]


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


def velocity_error(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean squared error per sample, (2B,), of tensors (2B, ...), over the positions where `mask` is 1."""
    squared = _residual(prediction, target).square()
    if mask is None:
        return squared.flatten(1).mean(1)
    real = mask.to(squared).expand_as(squared)
    return (squared * real).flatten(1).sum(1) / real.flatten(1).sum(1)


def per_modality(setting: str, value: PerModality, modalities: Iterable[str]) -> dict[str, float]:
    """Return one number per modality, given one number for all modalities or a mapping with one for each.

    Args:
        setting: name of the setting in error messages.
        value: the number or the mapping.
        modalities: names of the modalities in the data.

    Raises:
        ValueError: for a mapping with other modalities, or a number that is negative or NaN.
    """
    names = list(modalities)
    if isinstance(value, Mapping):
        if set(value) != set(names):
            raise ValueError(
                f"{setting} is given for {sorted(value)}, but the data has {sorted(names)}: "
                "give one number for all modalities, or exactly one for each."
            )
        return {name: _non_negative(setting, value[name]) for name in names}
    return dict.fromkeys(names, _non_negative(setting, value))


def _non_negative(setting: str, value: float) -> float:
    if not value >= 0:  # also true for NaN
        raise ValueError(f"{setting} is {value}, which would train towards the loser: give a number >= 0.")
    return float(value)


def _residual(prediction: Tensor, target: Tensor) -> Tensor:
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return prediction.to(dtype) - target.to(dtype)


def _gradients(prediction: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the gradients of the winners' and the losers' errors by their predictions, each (B, ...)."""
    gradient = 2 * _residual(prediction.detach(), target)
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
    if mask is None:
        return
    fits = mask.ndim == target.ndim and all(m in (1, t) for m, t in zip(mask.shape, shape, strict=True))
    if not fits or mask.shape[0] != target.shape[0]:
        raise ValueError(
            f"The mask of {name} has shape {tuple(mask.shape)}, which does not broadcast to {shape}: give one row for "
            "each sample, and as many axes as the latents have."
        )
    if not mask.flatten(1).any(1).all():
        raise ValueError(
            f"The mask of {name} leaves nothing of at least one sample, so its mean error would be 0 / 0: leave out "
            "such samples."
        )
