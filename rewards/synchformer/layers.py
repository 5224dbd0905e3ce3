"""Attention between heads, and the layer that sums up a set of tokens in one vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AGGREGATOR_EPS = 1e-6


def attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """Attention of (B, Q, C) queries to (B, K, C) keys; channels are head-major. Returns (B, Q, C)."""
    query, key, value = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value))
    mixed = F.scaled_dot_product_attention(query, key, value)  # (B, heads, Q, C / heads)
    return mixed.transpose(1, 2).flatten(2)


def learned(*shape: int) -> nn.Parameter:
    """A token or a table of positions, drawn small as is usual for transformers."""
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=0.02))


class Aggregator(nn.Module):
    """A pre-norm encoder layer over a learned token and the given ones; it returns only the learned token.

    So only that token asks, and only it passes the feed-forward part (docs/upstream/synchformer.md, sections 2.7 and
    3.5).
    """

    def __init__(self, width: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.cls_token = learned(1, 1, width)
        self.norm1 = nn.LayerNorm(width, eps=AGGREGATOR_EPS)
        self.self_attn = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width, eps=AGGREGATOR_EPS)
        self.linear1 = nn.Linear(width, mlp_ratio * width)
        self.linear2 = nn.Linear(mlp_ratio * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, C)."""
        cls = self.cls_token.expand(len(tokens), -1, -1)
        keys = self.norm1(torch.cat([cls, tokens], dim=1))  # (B, 1 + N, C)
        cls = cls + self.self_attn(keys[:, :1], keys, keys, need_weights=False)[0]
        cls = cls + self.linear2(F.gelu(self.linear1(self.norm2(cls))))
        return cls[:, 0]
