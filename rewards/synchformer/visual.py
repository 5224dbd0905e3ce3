"""The visual encoder: a video transformer whose attention is divided over time and space.

Source: docs/upstream/synchformer.md, section 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.synchformer.config import SynchformerConfig
from rewards.synchformer.layers import Aggregator, attend, learned

EPS = 1e-6


class VisualEncoder(nn.Module):
    """Frames of a segment to one vector per tube of frames. Names are those of the published state dict."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width, patch = config.visual_width, config.patch
        self.tubes, self.patches = config.tubes, config.patches
        self.cls_token = learned(1, 1, width)
        self.pos_embed = learned(1, 1 + config.patches, width)
        self.temp_embed = learned(1, config.tubes, width)
        self.patch_embed = _PatchEmbed(nn.Conv2d(3, width, patch, stride=patch))  # published, never used
        tube = (config.tubelet, patch, patch)
        self.patch_embed_3d = _PatchEmbed(nn.Conv3d(3, width, tube, stride=tube))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.visual_depth))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.spatial_attn_agg = Aggregator(width, config.visual_heads, config.mlp_ratio)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, frames_per_segment, 3, image_size, image_size) in [-1, 1] -> (B, tubes, visual_width)."""
        patches = self.patch_embed_3d.proj(frames.transpose(1, 2))  # (B, C, tubes, h, w)
        patches = patches.flatten(3).permute(0, 2, 3, 1)  # (B, tubes, patches, C)
        patches = patches + self.pos_embed[:, None, 1:] + self.temp_embed[:, :, None]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(frames), -1, -1)
        tokens = torch.cat([cls, patches.flatten(1, 2)], dim=1)  # (B, 1 + tubes * patches, C)
        for block in self.blocks:
            tokens = block(tokens)
        patches = self.norm(tokens[:, 1:]).unflatten(1, (self.tubes, self.patches))
        return self.spatial_attn_agg(patches.flatten(0, 1)).unflatten(0, (-1, self.tubes))


class _PatchEmbed(nn.Module):
    def __init__(self, proj: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.proj = proj


class _Block(nn.Module):
    """Time attention, then space attention, then the feed-forward part; the names suggest another order."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width = config.visual_width
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = _DividedAttention(config, over_time=False)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = _Mlp(width, config.mlp_ratio * width)
        self.norm3 = nn.LayerNorm(width, eps=EPS)
        self.timeattn = _DividedAttention(config, over_time=True)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.timeattn(self.norm3(tokens))
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class _DividedAttention(nn.Module):
    """The class token attends to all tokens, a patch to the class token and to the patches of its group.

    A group is one place at all times (`over_time`) or one time at all places.
    """

    def __init__(self, config: SynchformerConfig, over_time: bool) -> None:
        super().__init__()
        width = config.visual_width
        self.num_heads, self.over_time = config.visual_heads, over_time
        self.grid = (config.tubes, config.patches)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).chunk(3, dim=-1)  # (B, 1 + tubes * patches, C) each
        cls = attend(query[:, :1], key, value, self.num_heads)
        queries = self._groups(query)  # (B, groups, members, C)
        keys, values = (_with_cls(self._groups(x), x[:, :1]) for x in (key, value))  # (B, groups, 1 + members, C)
        mixed = attend(queries.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), self.num_heads)
        patches = self._in_order(mixed.unflatten(0, queries.shape[:2]))
        return self.proj(torch.cat([cls, patches], dim=1))

    def _groups(self, tokens: Tensor) -> Tensor:
        patches = tokens[:, 1:].unflatten(1, self.grid)  # (B, tubes, patches, C)
        return patches.transpose(1, 2) if self.over_time else patches

    def _in_order(self, groups: Tensor) -> Tensor:
        return (groups.transpose(1, 2) if self.over_time else groups).flatten(1, 2)


def _with_cls(groups: Tensor, cls: Tensor) -> Tensor:
    return torch.cat([cls[:, None].expand(-1, groups.shape[1], -1, -1), groups], dim=2)


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))
