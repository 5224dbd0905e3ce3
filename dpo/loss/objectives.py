"""Loss functions of a pair's margin, and the scale that limits the loser's gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dpo.loss.loss_types import LossType


def preference_loss(margin: Tensor, loss_type: LossType, label_smoothing: float = 0.0) -> Tensor:
    """Return the loss (B,) of the margins h (B,), with p = label_smoothing:

        sigmoid   -(1 - p) log sigmoid(h) - p log sigmoid(-h)               published with p = 0
        robust   (-(1 - p) log sigmoid(h) + p log sigmoid(-h)) / (1 - 2p)   arXiv 2403.00409, as in TRL
        hinge     relu(1 - h)
        ipo       (h - 1/2)^2                                               arXiv 2310.12036 in units of beta

    If a share p of the labels is swapped, the expected "robust" loss equals the sigmoid loss of the true labels. The
    smoothed "sigmoid" instead averages the losses of both orders; its minimum is at sigmoid(h) = 1 - p.
    """
    if loss_type == "hinge":
        return F.relu(1 - margin)
    if loss_type == "ipo":
        return (margin - 0.5).square()
    straight = -F.logsigmoid(margin)
    if label_smoothing == 0.0:
        return straight
    flipped = -F.logsigmoid(-margin)
    if loss_type == "robust":
        return ((1 - label_smoothing) * straight - label_smoothing * flipped) / (1 - 2 * label_smoothing)
    return (1 - label_smoothing) * straight + label_smoothing * flipped


def safe_loser_scale(winner: Tensor, loser: Tensor, mu: float) -> Tensor:
    """Return the largest scale of the loser's gradient with which the winner's error still falls.

    Source: Diffusion-SDPO, arXiv 2511.03317. With a = d e_w / d v_w and b = d e_l / d v_l, the gradients of the errors
    by the predicted velocities, a training step moves the predictions along -a + s b, so to first order the winner's
    error changes by a . (-a + s b). The largest s in [0, 1] that keeps this change at or below -mu |a|^2 is

        s = min(1, (1 - mu) |a|^2 / (a . b))    where a . b > 0, else 1.

    This is exact if a change of the weights moves both predictions alike, which is the paper's approximation. Here,
    each modality of each pair has its own scale; the paper's code treats the batch as one vector.

    Args:
        winner, loser: a and b, (B, ...).
        mu: share of its own descent that the winner keeps, in [0, 1]. With 0, the winner's error may stay constant;
            with 1, the loser's gradient is removed wherever a . b > 0. The paper's code uses 0.9. Residuals of two
            clips overlap little (a . b / |a|^2 was 0.04 to 0.6 on pairs of the tiny preset), so values under 0.5 have
            almost no effect.

    Returns:
        (B,) without gradient.
    """
    a, b = winner.detach().flatten(1), loser.detach().flatten(1)
    overlap = (a * b).sum(1)
    bound = (1 - mu) * a.square().sum(1) / overlap.clamp(min=torch.finfo(a.dtype).tiny)
    return torch.where(overlap > 0, bound.clamp(max=1.0), torch.ones_like(bound))
