"""Names of the preference losses, and the check of their settings. Imports no torch."""

from __future__ import annotations

from typing import Literal, get_args

LossType = Literal["sigmoid", "robust", "ipo", "hinge"]
SMOOTHED = ("sigmoid", "robust")  # the losses that use label_smoothing


def check_objective(loss_type: str, label_smoothing: float, winner_preserving_mu: float | None) -> None:
    """Raise ValueError for settings that are unknown, out of range, or cannot be combined."""
    if loss_type not in get_args(LossType):
        raise ValueError(f"loss_type {loss_type!r} is unknown: choose one of {', '.join(get_args(LossType))}.")
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing is {label_smoothing}: from 0.5 on the labels carry no preference; give [0, 0.5)."
        )
    if label_smoothing and loss_type not in SMOOTHED:
        raise ValueError(
            f"label_smoothing {label_smoothing} has no meaning for loss_type {loss_type!r}: "
            f"set it to 0, or use loss_type {' or '.join(map(repr, SMOOTHED))}."
        )
    if winner_preserving_mu is None:
        return
    if not 0.0 <= winner_preserving_mu <= 1.0:
        raise ValueError(f"winner_preserving_mu is {winner_preserving_mu}: give a number in [0, 1], or null for off.")
    if loss_type == "ipo" or (loss_type == "sigmoid" and label_smoothing):
        smoothed = f" with label_smoothing {label_smoothing}" if label_smoothing else ""
        raise ValueError(
            f"winner_preserving_mu is {winner_preserving_mu}, but loss_type {loss_type!r}{smoothed} itself raises the "
            "winner's error once the margin is large: use 'robust', 'hinge', or 'sigmoid' without smoothing."
        )
