"""Muon for any weight: momentum, orthogonalised.  `torch.optim.Muon` takes matrices only; convolutions need it most.

Orthogonalised updates move every direction at the same speed, so that the weak ones (a picture's hue beside its
brightness) are learned in hundreds of steps, not thousands.  Source: K. Jordan et al., "Muon", 2024.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
RMS_OF_ADAM = 0.2  # makes one learning rate serve both kinds of parameters
MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum; a weight (out, ...) is treated as a matrix (out, rest)."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
                update = orthogonalize(parameter.grad.lerp(state["momentum"], MOMENTUM).flatten(1))
                scale = RMS_OF_ADAM * math.sqrt(max(update.shape))
                parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)


def orthogonalize(matrix: Tensor) -> Tensor:
    """About the nearest matrix with all singular values equal to one, by Newton-Schulz iteration."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()  # three digits are plenty, at half the time
    x = x / (x.norm() + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


def muon_and_adamw(module: nn.Module, lr: float, hidden: nn.Module | None = None) -> list[torch.optim.Optimizer]:
    """Muon for the weights of two or more axes inside `hidden` (all of `module` by default), AdamW for the rest."""
    weights = [parameter for parameter in (hidden or module).parameters() if parameter.ndim >= 2]
    chosen = {id(weight) for weight in weights}
    others = [parameter for parameter in module.parameters() if id(parameter) not in chosen]
    return [Muon(weights, lr), torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]
