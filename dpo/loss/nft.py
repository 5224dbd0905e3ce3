"""The loss of negative-aware fine-tuning with one term per modality (docs/upstream/nft.md, section 1).

DiffusionNFT (arXiv 2509.16117) trains on scored samples without pairs: with r, the probability that a sample is good,
the policy is fitted to the sample, and with 1 - r the policy's mirror image about the old policy is. OmniNFT (arXiv
2605.12480) gives each modality its own r.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dpo.loss.errors import PerModality, check_positions, per_modality, residual, sample_mean
from dpo.loss.nft_settings import NFTForm, Prediction, check_nft

ERROR_FLOOR = 1e-5  # of the mean absolute error of x0 that the adaptive form divides by, as published


@dataclass(frozen=True, eq=False)
class NFTLoss:
    """Loss per sample, and its parts as metrics.

    Attributes:
        loss: (B,) float32, with gradient; reduce it with `mean()`.
        metrics: name -> (B,) detached tensor. Per modality m: `loss/nft/<m>` is L_m of `nft_loss`, and `kl/<m>` the
            distance to the reference, if one is given; `error/{positive,negative,policy,old}/<m>` are velocity errors
            e; `distance/old/<m>` is mean((v - v_old)^2); `advantage/<m>` is the advantage after the clip, and `r/<m>`
            the probability made of it; `probe/<m>` is advantage * (e_old - e_policy) / 2. The mean of the probe is
            positive if the policy moved from v_old towards samples with high advantages; relative to `distance/old`
            it shows how much of the way served the rewards.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


def nft_loss(
    policy: Mapping[str, Tensor],
    old: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    sigma: Tensor,
    advantage: Mapping[str, Tensor],
    *,
    beta: float = 1.0,
    clip: float,
    form: NFTForm,
    prediction: Prediction,
    modality_weights: PerModality | None = None,
    kl_weight: PerModality = 0.0,
    reference: Mapping[str, Tensor] | None = None,
    token_weight: Mapping[str, Tensor] | None = None,
    mask: Mapping[str, Tensor] | None = None,
) -> NFTLoss:
    """Compute the loss of negative-aware fine-tuning, with one term per modality.

    With the noise level t, e(u) = mean((u - target)^2) and a(u) = mean(|u - target|) of one sample, modality m:

        v+   = v_old + beta (v - v_old),   v- = v_old - beta (v - v_old)
        r_m  = 1/2 + min(max(advantage_m, -clip), clip) / (2 clip)
        L_m  = r_m e(v+) + (1 - r_m) e(v-)                                               plain
        L_m  = (r_m t e(v+) / a(v+) + (1 - r_m) t e(v-) / a(v-)) / beta                  adaptive; no gradient through a
        loss = sum_m weight_m * (clip * L_m + kl_weight_m * mean((v - v_reference)^2))

    The adaptive form divides the errors of the x0 prediction, t^2 e, by their mean absolute error, t a, which is at
    least 1e-5. DiffusionNFT is "adaptive" with prediction "velocity", OmniNFT "adaptive" with "x0" and weights that
    sum to 1.

    Args:
        policy: modality -> (B, ...) predicted velocities.
        old: modality -> (B, ...) velocities predicted by the policy that made the samples; taken as constant.
        target: modality -> (B, ...) true velocities.
        sigma: (B,) noise levels t in [0, 1].
        advantage: modality -> (B,) advantages of the samples, before the clip.
        beta: how far v+ and v- lie from v_old, > 0. Only clip * beta sets how far the optimum of the plain form lies
            from v_old: at v_old + Cov(advantage, target) / (clip * beta), where no advantage is clipped.
        clip: bound of the absolute advantages, > 0 (published 5).
        form: "plain", the paper's equation, or "adaptive", the published code.
        prediction: space of the plain errors and of the distance to the reference: "velocity", or "x0", where both
            are multiplied by t^2.
        modality_weights: weight of each modality's loss, 1 by default; the weights are not normalised.
        kl_weight: weight of the distance to the reference, >= 0; one number or one per modality (published 1e-4).
        reference: modality -> (B, ...) velocities predicted by the reference.
        token_weight: modality -> (B, ...) weights of the positions in e, broadcast to `target` and normalised to sum to
            1; a and the distance to the reference are not weighted, as published.
        mask: modality -> (B, ...), broadcast to `target`: 1 for a real latent, 0 for padding, which is left out of
            every mean.

    Means are computed in float32 (float64 for float64 predictions), for any precision of the predictions.

    Raises:
        ValueError: if modalities or shapes disagree, an advantage is not finite, or a setting is out of range.
    """
    check_nft(beta, clip, form, prediction)
    weights = per_modality("modality_weights", 1.0 if modality_weights is None else modality_weights, target)
    kl_weights = per_modality("kl_weight", kl_weight, target)
    masks, token_weights = mask or {}, token_weight or {}
    _check_inputs(policy, old, target, sigma, advantage, reference, masks, token_weights)
    if reference is None and any(kl_weights.values()):
        raise ValueError(f"kl_weight is {kl_weight}, but there is no reference to stay near: give one, or set it to 0.")

    total: Tensor | float = 0.0
    metrics: dict[str, Tensor] = {}
    for name, true in target.items():
        errors = _Errors(policy[name], old[name], true, sigma, masks.get(name), token_weights.get(name))
        parts = errors.parts(advantage[name], beta, clip, form, prediction)
        term = clip * parts["loss/nft"]
        if reference is not None:
            parts["kl"] = errors.distance(reference[name], prediction)
            term = term + kl_weights[name] * parts["kl"]
        total = total + weights[name] * term
        metrics |= {f"{part}/{name}": value.detach() for part, value in parts.items()}
    assert isinstance(total, Tensor)
    return NFTLoss(total, metrics)


class _Errors:
    """Errors of the policy, of the old policy and of the velocities on the line through both, of one modality."""

    def __init__(
        self, policy: Tensor, old: Tensor, target: Tensor, sigma: Tensor, mask: Tensor | None, weight: Tensor | None
    ) -> None:
        dtype = torch.promote_types(policy.dtype, torch.float32)
        self._prediction, self._mask = policy.to(dtype), mask
        self._weight = mask if weight is None else weight.to(dtype) if mask is None else weight.to(dtype) * mask
        self._old_residual = old.detach().to(dtype) - target.to(dtype)
        self._step = self._prediction - old.detach().to(dtype)
        self._sigma = sigma.to(self._step)
        with torch.no_grad():
            self.old = self._mean_square(self._old_residual)  # (B,)
            self.policy = self._mean_square(self._old_residual + self._step)  # (B,)

    def parts(
        self, advantage: Tensor, beta: float, clip: float, form: NFTForm, prediction: Prediction
    ) -> dict[str, Tensor]:
        """Return the modality's loss "loss/nft", with gradient, and its metrics, each (B,)."""
        clipped = advantage.to(self.old).clamp(-clip, clip)
        r = 0.5 + clipped / (2 * clip)
        positive, e_positive = self._term(beta, form, prediction)
        negative, e_negative = self._term(-beta, form, prediction)
        return {
            "loss/nft": r * positive + (1 - r) * negative,
            "error/positive": e_positive,
            "error/negative": e_negative,
            "error/policy": self.policy,
            "error/old": self.old,
            "distance/old": sample_mean(self._step.detach().square(), self._mask),
            "advantage": clipped,
            "r": r,
            "probe": clipped * (self.old - self.policy) / 2,
        }

    def distance(self, other: Tensor, prediction: Prediction) -> Tensor:
        """Return the mean squared distance (B,) between the predictions of the policy and of another model."""
        gap = residual(self._prediction, other.detach())
        return self._in_space(sample_mean(gap.square(), self._mask), prediction)

    def _term(self, beta: float, form: NFTForm, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Return the term of v_old + beta (v - v_old) in the loss, and its velocity error e, both (B,)."""
        residuals = self._old_residual + beta * self._step
        error = self._mean_square(residuals)
        if form == "plain":
            return self._in_space(error, prediction), error
        absolute = self._sigma * sample_mean(residuals.detach().abs(), self._mask)
        return self._sigma.square() * error / absolute.clamp(min=ERROR_FLOOR) / abs(beta), error

    def _mean_square(self, residuals: Tensor) -> Tensor:
        return sample_mean(residuals.square(), self._weight)

    def _in_space(self, squared: Tensor, prediction: Prediction) -> Tensor:
        return self._sigma.square() * squared if prediction == "x0" else squared


def _check_inputs(
    policy: Mapping[str, Tensor],
    old: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    sigma: Tensor,
    advantage: Mapping[str, Tensor],
    reference: Mapping[str, Tensor] | None,
    masks: Mapping[str, Tensor],
    token_weights: Mapping[str, Tensor],
) -> None:
    velocities = {"policy": policy, "old": old, "target": target}
    if reference is not None:
        velocities["reference"] = reference
    given = velocities | {"advantage": advantage}
    if not target or any(set(tensors) != set(target) for tensors in given.values()):
        names = ", ".join(f"{role} {sorted(tensors)}" for role, tensors in given.items())
        raise ValueError(f"Modalities differ: {names}. Pass the same non-empty set in all of them.")
    if foreign := (set(masks) | set(token_weights)) - set(target):
        raise ValueError(f"mask or token_weight is given for {sorted(foreign)}, which target lacks: leave it out.")
    for name, true in target.items():
        shape = tuple(true.shape)
        shapes = {tuple(tensors[name].shape) for tensors in velocities.values()}
        if len(shapes) > 1 or len(shape) < 2:
            raise ValueError(
                f"{name} has shapes {sorted(shapes)} in {', '.join(velocities)}: give velocities (B, ...) of "
                "the same latents."
            )
        check_positions("mask", name, masks.get(name), shape)
        check_positions("token_weight", name, token_weights.get(name), shape)
        _check_rows(f"The advantage of {name}", advantage[name], shape[0])
        if not advantage[name].isfinite().all():
            raise ValueError(
                f"The advantage of {name} is {advantage[name].tolist()}; one that is not finite stands for a score "
                "that failed: leave out such samples."
            )
        _check_rows("sigma", sigma, shape[0])
    if not ((sigma >= 0) & (sigma <= 1)).all():
        raise ValueError(f"sigma is {sigma.tolist()}: give noise levels in [0, 1], which are timesteps / 1000.")


def _check_rows(name: str, values: Tensor, num_samples: int) -> None:
    if tuple(values.shape) != (num_samples,):
        raise ValueError(f"{name} has shape {tuple(values.shape)} for {num_samples} samples: give one per sample.")
