"""The preference loss of joint audio-video DPO (JavisDiT++, arXiv 2602.19163; Diffusion-DPO, arXiv 2311.12908)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

LossType = Literal["sigmoid", "ipo", "hinge"]
PerModality = float | Mapping[str, float]


@dataclass(frozen=True, eq=False)
class AVDPOLoss:
    """Loss per pair, and what it is made of.

    Attributes:
        loss: (B,) float32, with gradient; reduce it with `mean()`.
        metrics: name -> (B,) detached tensor.  Per modality `rewards/{chosen,rejected,margins,accuracies}/<m>`,
            `error/{chosen,rejected}/<m>`, `ref_error/{chosen,rejected}/<m>`, `loss/{dpo,fm}/<m>`; TRL's four
            `rewards/*` without a modality are the weighted sums over modalities.
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
) -> AVDPOLoss:
    """DPO on velocity errors, one term per modality, each kept on the data by a flow-matching term.

    With e = mean((prediction - target)^2) of one sample, w the winner and l the loser:

        d_m    = (e_w - e_l)_policy - (e_w - e_l)_reference
        h_m    = -beta_m / 2 * d_m                                   implicit reward margin
        loss_m = f(h_m) + fm_weight_m * e_w,policy
        loss   = sum_m weight_m * loss_m

    f is -log sigmoid(h) for "sigmoid" (published), relu(1 - h) for "hinge" and (h - 1/2)^2 for "ipo" (the squared
    loss of arXiv 2310.12036 in units of beta, so that its gradient is of the size of the other two).

    Args:
        policy: modality -> (2B, ...) predicted velocity; the B chosen samples first, then their B rejected ones.
        reference: the same from the frozen reference.
        target: the same, true velocities.
        beta: strength of the preference, >= 0; one number or one per modality (published: video 3000, audio 1000).
        modality_weights: weight of each modality's loss, 1 by default.
        fm_weight: weight of the winner's flow-matching error (published 0.1).
        loss_type: "sigmoid", "ipo" or "hinge".
        label_smoothing: share of pairs assumed to be labelled the wrong way round, in [0, 0.5); "sigmoid" only.

    Errors are reduced in float32 (or float64 if given), whatever the precision of the predictions.

    Raises:
        ValueError: modalities or shapes disagree, an odd batch, or a setting out of its range.
    """
    _check_inputs(policy, reference, target)
    _check_settings(loss_type, label_smoothing)
    betas = per_modality("beta", beta, target)
    weights = per_modality("modality_weights", 1.0 if modality_weights is None else modality_weights, target)
    fm_weights = per_modality("fm_weight", fm_weight, target)

    total: Tensor | float = 0.0
    metrics: dict[str, Tensor] = {}
    for name in target:
        winner, loser = _errors(policy[name], target[name])  # (B,), (B,)
        ref_winner, ref_loser = _errors(reference[name], target[name])
        difference = (winner - loser) - (ref_winner - ref_loser)
        preference = _preference_loss(-0.5 * betas[name] * difference, loss_type, label_smoothing)
        total = total + weights[name] * (preference + fm_weights[name] * winner)
        metrics |= {
            f"rewards/chosen/{name}": -0.5 * betas[name] * (winner - ref_winner),
            f"rewards/rejected/{name}": -0.5 * betas[name] * (loser - ref_loser),
            f"rewards/margins/{name}": -0.5 * betas[name] * difference,
            f"rewards/accuracies/{name}": (difference < 0).float(),
            f"error/chosen/{name}": winner,
            f"error/rejected/{name}": loser,
            f"ref_error/chosen/{name}": ref_winner,
            f"ref_error/rejected/{name}": ref_loser,
            f"loss/dpo/{name}": preference,
            f"loss/fm/{name}": winner,
        }
    assert isinstance(total, Tensor)
    metrics |= _summed_rewards(metrics, weights)
    return AVDPOLoss(total, {name: value.detach() for name, value in metrics.items()})


def per_modality(setting: str, value: PerModality, modalities: Iterable[str]) -> dict[str, float]:
    """One number per modality from one number for all of them, or from a mapping that names each."""
    names = list(modalities)
    if isinstance(value, Mapping):
        if set(value) != set(names):
            raise ValueError(
                f"{setting} is given for {sorted(value)}, the data has {sorted(names)}: "
                "give one number for all modalities, or exactly one for each."
            )
        return {name: _non_negative(setting, value[name]) for name in names}
    return dict.fromkeys(names, _non_negative(setting, value))


def _non_negative(setting: str, value: float) -> float:
    if not value >= 0:  # NaN fails this as well
        raise ValueError(f"{setting} is {value}, which would train towards the loser: give a number >= 0.")
    return float(value)


def _errors(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    error = (prediction.to(dtype) - target.to(dtype)).square().flatten(1).mean(1)  # (2B,)
    winner, loser = error.chunk(2)
    return winner, loser


def _preference_loss(margin: Tensor, loss_type: LossType, label_smoothing: float) -> Tensor:
    if loss_type == "hinge":
        return F.relu(1 - margin)
    if loss_type == "ipo":
        return (margin - 0.5).square()
    if label_smoothing == 0.0:
        return -F.logsigmoid(margin)
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


def _summed_rewards(metrics: dict[str, Tensor], weights: dict[str, float]) -> dict[str, Tensor]:
    summed = {
        f"rewards/{side}": torch.stack([weights[name] * metrics[f"rewards/{side}/{name}"] for name in weights]).sum(0)
        for side in ("chosen", "rejected", "margins")
    }
    return summed | {"rewards/accuracies": (summed["rewards/margins"] > 0).float()}


def _check_inputs(policy: Mapping[str, Tensor], reference: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    if not target or not set(policy) == set(reference) == set(target):
        raise ValueError(
            f"Modalities differ: policy {sorted(policy)}, reference {sorted(reference)}, target {sorted(target)}; "
            "pass the same non-empty set in all three."
        )
    for name, value in target.items():
        shapes = {tuple(tensors[name].shape) for tensors in (policy, reference, target)}
        if len(shapes) > 1:
            raise ValueError(
                f"{name} has shapes {sorted(shapes)} in policy, reference and target, so their errors "
                "cannot be compared: predict all three for the same latents."
            )
        if value.ndim < 2 or value.shape[0] == 0 or value.shape[0] % 2:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, which does not split into pairs: "
                "stack B chosen samples and then B rejected ones along the first axis."
            )
    batches = {value.shape[0] for value in target.values()}
    if len(batches) > 1:
        raise ValueError(f"Modalities hold {sorted(batches)} samples: every pair needs all of its modalities.")


def _check_settings(loss_type: str, label_smoothing: float) -> None:
    if loss_type not in get_args(LossType):
        raise ValueError(f"loss_type {loss_type!r} is unknown: choose one of {', '.join(get_args(LossType))}.")
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing is {label_smoothing}: from 0.5 on the labels carry no preference; give [0, 0.5)."
        )
    if label_smoothing and loss_type != "sigmoid":
        raise ValueError(
            f"label_smoothing {label_smoothing} has no meaning for loss_type {loss_type!r}: "
            "set it to 0, or use loss_type 'sigmoid'."
        )
