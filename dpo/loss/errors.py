"""Errors of predicted velocities per sample, and the settings and checks that all losses share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

PerModality = float | Mapping[str, float]


def velocity_error(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean squared error per sample, (B,), of tensors (B, ...), over the positions where `mask` is 1."""
    return sample_mean(residual(prediction, target).square(), mask)


def residual(prediction: Tensor, target: Tensor) -> Tensor:
    """Return prediction - target in float32, or in float64 for float64 predictions."""
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return prediction.to(dtype) - target.to(dtype)


def sample_mean(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean of values (B, ...) per sample, (B,), with the `weight` of each position, broadcast to `values`.

    A mask is such a weight: 1 for a real latent, 0 for padding.
    """
    if weight is None:
        return values.flatten(1).mean(1)
    spread = weight.to(values).expand_as(values)
    return (values * spread).flatten(1).sum(1) / spread.flatten(1).sum(1)


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


def check_positions(setting: str, name: str, weight: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the positions' weights fit latents of this shape and leave something of each sample.

    Args:
        setting: name of the weights in error messages, such as "mask".
        name: modality.
        weight: the weights, to be broadcast to `shape`, or None.
        shape: (B, ...) of the latents.
    """
    if weight is None:
        return
    fits = weight.ndim == len(shape) and all(w in (1, s) for w, s in zip(weight.shape, shape, strict=True))
    if not fits or weight.shape[0] != shape[0]:
        raise ValueError(
            f"The {setting} of {name} has shape {tuple(weight.shape)}, which does not broadcast to {shape}: give one "
            "row for each sample, and as many axes as the latents have."
        )
    if not weight.flatten(1).any(1).all():
        raise ValueError(
            f"The {setting} of {name} leaves nothing of at least one sample, so its mean error would be 0 / 0: leave "
            "out such samples."
        )


def _non_negative(setting: str, value: float) -> float:
    if not value >= 0:  # also true for NaN
        raise ValueError(f"{setting} is {value}, which would train in the opposite direction: give a number >= 0.")
    return float(value)
