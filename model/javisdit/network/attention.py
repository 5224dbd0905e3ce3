"""Self-attention and cross-attention with torch's `scaled_dot_product_attention` and a selectable backend."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.javisdit.network.gradient_surgery import scale_gradient

ATTENTION_BACKENDS = {
    "auto": None,  # torch's own choice
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


class RMSNorm(nn.Module):
    """Root-mean-square norm over the whole model width (all heads together); sums are computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, hidden.shape[-1:], self.weight.to(hidden.dtype), self.eps)


class Attention(nn.Module):
    """Base class of both kinds of attention: projections, norms and backend."""

    def __init__(self, dim: int, num_heads: int, qk_norm: bool, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.backend: SDPBackend | None = None
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps) if qk_norm else nn.Identity()
        self.norm_k = RMSNorm(dim, eps) if qk_norm else nn.Identity()

    def _queries(self, hidden: Tensor) -> Tensor:
        """Project (B, N, D) to queries (B, N, heads, head_dim)."""
        return self.norm_q(self.q(hidden)).unflatten(-1, (self.num_heads, -1))

    def _keys_and_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Project (B, L, D) to keys and values, each (B, L, heads, head_dim)."""
        projected = self.norm_k(self.k(context)), self.v(context)
        key, value = (tensor.unflatten(-1, (self.num_heads, -1)) for tensor in projected)
        return key, value

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))  # heads first
        if query.device.type == "cpu":
            # Measured: torch's bfloat16 attention takes 2 to 8 times as long as float32, on recent CPUs too.
            with torch.autocast("cpu", enabled=False):
                attended = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
            attended = attended.to(value.dtype)
        else:
            with sdpa_kernel(self.backend) if self.backend is not None else nullcontext():
                attended = F.scaled_dot_product_attention(query, key, value)
        return self.o(attended.transpose(1, 2).flatten(2))


class SelfAttention(Attention):
    """Full attention over all tokens of all modalities.

    Attributes:
        audio_gradient_scale: factor on the gradients that reach the audio tokens through the keys and values that video
            tokens attend to; outputs and the gradients of the attention's own weights stay as they are. At 1, the
            default, nothing is scaled.
    """

    audio_gradient_scale: float = 1.0

    def forward(self, hidden: Tensor, rotary: tuple[Tensor, Tensor], num_video: int | None = None) -> Tensor:
        """Map (B, N, D) to (B, N, D).

        Args:
            hidden: video tokens followed by audio tokens.
            rotary: the cosines and sines of `positions.rotary_table`.
            num_video: number of video tokens, if both modalities are present.
        """
        query = apply_rotary(self._queries(hidden), *rotary)
        key, value = self._keys_and_values(hidden)
        key = apply_rotary(key, *rotary)
        if num_video is None or self.audio_gradient_scale == 1.0 or not torch.is_grad_enabled():
            return self._attend(query, key, value)
        audio = scale_gradient(hidden[:, num_video:], self.audio_gradient_scale)
        audio_key, audio_value = self._keys_and_values(audio)
        audio_key = apply_rotary(audio_key, *(table[num_video:] for table in rotary))
        seen_key = torch.cat([key[:, :num_video], audio_key], dim=1)
        seen_value = torch.cat([value[:, :num_video], audio_value], dim=1)
        video = self._attend(query[:, :num_video], seen_key, seen_value)
        return torch.cat([video, self._attend(query[:, num_video:], key, value)], dim=1)


class CrossAttention(Attention):
    """Attention from tokens to text; padded text positions are attended to as well, as published."""

    def forward(self, hidden: Tensor, context: Tensor) -> Tensor:
        """Map tokens (B, N, D) and text (B, L, D) to (B, N, D)."""
        return self._attend(self._queries(hidden), *self._keys_and_values(context))


def apply_rotary(hidden: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the channel pairs (2i, 2i+1) of (B, N, heads, head_dim) by angles given as cosine and sine.

    Args:
        hidden: queries or keys.
        cosine, sine: (N, head_dim // 2).
    """
    even, odd = hidden.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = cosine[:, None], sine[:, None]
    turned = (torch.addcmul(even * cosine, odd, sine, value=-1), torch.addcmul(even * sine, odd, cosine))
    return torch.stack(turned, dim=-1).flatten(-2).type_as(hidden)
