"""The layers of the joint transformer: attention with rotary positions, feed-forward, modulation, output head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square norm over the whole model width (all heads together), computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden.float(), hidden.shape[-1:], eps=self.eps).type_as(hidden) * self.weight


class SelfAttention(nn.Module):
    """Full attention over all tokens of all modalities."""

    def __init__(self, dim: int, num_heads: int, qk_norm: bool, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps) if qk_norm else nn.Identity()
        self.norm_k = RMSNorm(dim, eps) if qk_norm else nn.Identity()

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """(B, N, D) -> (B, N, D); `rotary` is the cosines and sines of `positions.rotary_table`."""
        query = apply_rotary(_split_heads(self.norm_q(self.q(hidden)), self.num_heads), *rotary)
        key = apply_rotary(_split_heads(self.norm_k(self.k(hidden)), self.num_heads), *rotary)
        value = _split_heads(self.v(hidden), self.num_heads)
        return self.o(_attend(query, key, value))


class CrossAttention(SelfAttention):
    """Attention from tokens to text; padded text positions take part, as published."""

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        """(B, N, D) tokens and (B, L, D) text -> (B, N, D)."""
        query = _split_heads(self.norm_q(self.q(hidden)), self.num_heads)
        key = _split_heads(self.norm_k(self.k(context)), self.num_heads)
        value = _split_heads(self.v(context), self.num_heads)
        return self.o(_attend(query, key, value))


class Modulation(nn.Module):
    """A learned offset to the time modulation; a module of its own because the checkpoint names it so."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__()
        self.param = nn.Parameter(torch.randn(1, rows, dim) / dim**0.5)


class Head(nn.Module):
    """Modulated norm and projection from tokens to patches."""

    def __init__(self, dim: int, patch_dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.head = nn.Linear(dim, patch_dim)
        self.modulation = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        """(B, N, D) tokens and float32 (B, D) time embedding -> (B, N, patch_dim)."""
        shift, scale = (self.modulation.float() + time.unsqueeze(1)).unsqueeze(2).unbind(1)  # 2 x (B, 1, D)
        normed = F.layer_norm(hidden.float(), hidden.shape[-1:], eps=self.eps)
        return self.head(modulate(normed, shift, scale).to(self.head.weight.dtype))


def feed_forward(dim: int, hidden_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden_dim), nn.GELU(approximate="tanh"), nn.Linear(hidden_dim, dim))


def modulate(normed: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, normed, 1 + scale)


def sinusoidal_embedding(timestep: Tensor, dim: int) -> Tensor:
    """(B,) -> float32 (B, dim): cosines, then sines, computed in float64 as published."""
    half = dim // 2
    frequencies = 10_000.0 ** (-torch.arange(half, dtype=torch.float64, device=timestep.device) / half)
    angles = timestep.double()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def apply_rotary(hidden: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates channel pairs (2i, 2i+1) of (B, heads, N, head_dim) by the angles of (N, head_dim // 2)."""
    even, odd = hidden.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return rotated.flatten(-2).type_as(hidden)


def _split_heads(hidden: Tensor, num_heads: int) -> Tensor:
    return hidden.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # (B, heads, N, head_dim)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
