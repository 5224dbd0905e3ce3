"""The small layers of the joint transformer: time embedding, modulation, feed-forward and output head."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 for any dtype of its weights, like the release (there by autocast)."""

    def forward(self, input: Tensor) -> Tensor:
        dtype = torch.promote_types(self.weight.dtype, torch.float32)  # float64 stays float64
        device = input.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            return F.linear(input.to(dtype), self.weight.to(dtype), self.bias.to(dtype))


class Modulation(nn.Module):
    """A learned offset to the time modulation; a separate module, because the checkpoint's tensor names require it."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.param = nn.Parameter(torch.empty(1, rows, dim))


class Head(nn.Module):
    """Output head: modulated norm and projection from tokens to patches, in float32."""

    def __init__(self, dim: int, patch_dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.head = Float32Linear(dim, patch_dim)
        self.modulation = nn.Parameter(torch.empty(1, 2, dim))

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        """Map tokens (B, N, D) and the time embedding, float32 (B, D), to patches, float32 (B, N, patch_dim)."""
        shift, scale = (self.modulation + time.unsqueeze(1)).unsqueeze(2).unbind(1)  # 2 x (B, 1, D)
        normed = F.layer_norm(hidden.to(time.dtype), hidden.shape[-1:], eps=self.eps)
        return self.head(modulate(normed, shift, scale))


def feed_forward(dim: int, hidden_dim: int) -> nn.Sequential:
    """Return a two-layer perceptron with tanh-approximated GELU, (..., dim) -> (..., dim)."""
    return nn.Sequential(nn.Linear(dim, hidden_dim), nn.GELU(approximate="tanh"), nn.Linear(hidden_dim, dim))


def time_projection(dim: int, rows: int) -> nn.Sequential:
    """Return the projection from the time embedding (B, D) to the modulation (B, rows * D)."""
    return nn.Sequential(nn.SiLU(), Float32Linear(dim, rows * dim))


def modulate(normed: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return normed * (1 + scale) + shift."""
    return torch.addcmul(shift, normed, 1 + scale)


def sinusoidal_embedding(timestep: Tensor, dim: int) -> Tensor:
    """Embed timesteps (B,) as float64 (B, dim): cosines, then sines, as published."""
    half = dim // 2
    frequencies = 10_000.0 ** (-torch.arange(half, dtype=torch.float64, device=timestep.device) / half)
    angles = timestep.double()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)
