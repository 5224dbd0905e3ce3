"""Muon optimiser: orthogonalised momentum for weights with two or more axes, Adam for all other parameters.

Orthogonalised updates move every direction at the same speed, so weak directions (a picture's hue compared with its
brightness) are learned in hundreds of steps instead of thousands. `torch.optim.Muon` accepts only matrices, but
convolutions profit most. Source: K. Jordan et al., "Muon", 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
RMS_OF_ADAM = 0.2  # scales orthogonal updates to the size of Adam's, so that one learning rate suits both
MOMENTUM = 0.95
ADAM_BETAS, ADAM_EPSILON = (0.9, 0.98), 1e-8


class Muon(torch.optim.Optimizer):
    """Optimiser with orthogonalised Nesterov momentum for some parameters and Adam for the others.

    Orthogonalisation treats a weight (out, ...) as a matrix (out, rest).
    """

    def __init__(self, module: nn.Module, lr: float, hidden: nn.Module | None = None) -> None:
        """Collect the trainable parameters of a module.

        Args:
            module: module whose trainable parameters are optimised.
            lr: learning rate.
            hidden: part of `module` whose parameters with two or more axes get orthogonalised updates; None means the
                whole module.
        """
        inside = {id(weight) for weight in (hidden or module).parameters() if weight.ndim >= 2}
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if (id(p) in inside) is orthogonal], "orthogonal": orthogonal}
            for orthogonal in (True, False)
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            trained = [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]
            if group["orthogonal"]:
                self._step_orthogonal(trained, group["lr"])
            else:
                for parameter, gradient in trained:
                    self._adam(parameter, gradient, group["lr"])

    def _step_orthogonal(self, trained: list[tuple[Tensor, Tensor]], lr: float) -> None:
        """Update matrices of the same shape in one batch, which is faster than many small matrix products."""
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for parameter, gradient in trained:
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = gradient.lerp(momentum, MOMENTUM).flatten(1)
            by_shape.setdefault(update.shape, []).append((parameter, update))
        for shape, pairs in by_shape.items():
            updates = orthogonalize(torch.stack([update for _, update in pairs]))
            for (parameter, _), update in zip(pairs, updates, strict=True):
                parameter.add_(update.view_as(parameter), alpha=-lr * RMS_OF_ADAM * math.sqrt(max(shape)))

    def _adam(self, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        state = self.state[parameter]
        if not state:
            state |= {"step": torch.zeros(()), "mean": torch.zeros_like(parameter), "var": torch.zeros_like(parameter)}
        state["step"] += 1
        step, (decay, var_decay) = state["step"].item(), ADAM_BETAS
        state["mean"].lerp_(gradient, 1 - decay)
        state["var"].lerp_(gradient.square(), 1 - var_decay)
        root = (state["var"] / (1 - var_decay**step)).sqrt_().add_(ADAM_EPSILON)
        parameter.addcdiv_(state["mean"], root, value=-lr / (1 - decay**step))


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return approximately the nearest matrices (..., m, n) whose singular values are all one (Newton-Schulz)."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).bfloat16()  # three digits suffice and take half the time
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)
