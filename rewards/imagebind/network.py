"""ImageBind: one transformer per modality, with one space of embeddings for all. No parameter is shared.

Submodules carry the names of the published checkpoint. Source: docs/upstream/imagebind.md, sections 1 to 4.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.imagebind.config import MODALITIES, ImageBindConfig, Modality, TrunkConfig
from rewards.imagebind.stems import AudioTokens, ClipTokens, ImageTokens, ImuTokens, TextTokens

BLOCK_EPS = 1e-6  # of every LayerNorm outside the stems
SCALES: dict[Modality, float] = {"text": 1 / 0.07, "audio": 20.0, "depth": 5.0, "thermal": 10.0, "imu": 5.0}
MAX_SCALE = 100.0
EXTRA_KEY: frozenset[Modality] = frozenset({"audio", "depth", "thermal", "imu"})


class ImageBind(nn.Module):
    """Embeds inputs of one modality at a time.

    Args:
        config: sizes of all modalities.
        modalities: those to build; the others have no parameters here.
    """

    def __init__(self, config: ImageBindConfig, modalities: Collection[Modality] = MODALITIES) -> None:
        super().__init__()
        self.config = config
        self.modality_preprocessors = nn.ModuleDict({name: _tokens(name, config) for name in modalities})
        self.modality_trunks = nn.ModuleDict({name: Trunk(getattr(config, name), name) for name in modalities})
        self.modality_heads = nn.ModuleDict({name: _head(name, config) for name in modalities})
        self.modality_postprocessors = nn.ModuleDict({name: _postprocessor(name) for name in modalities})

    def forward(self, modality: Modality, inputs: Tensor) -> Tensor:
        """One float32 embedding per item, (N, embed_dim): of length 1, times the scale of the modality.

        Args:
            modality: one of those that were built.
            inputs: vision: clips (N, 3, frames_per_clip, S, S), or images (N, 3, S, S), each a clip of equal frames;
                text: ids (N, L) with L <= context_length, the largest id of a row being its end;
                audio: (N, 1, mel_bins, mel_frames); depth, thermal: (N, 1, S, S); imu: (N, channels, samples).
        """
        tokens = self.modality_trunks[modality](self.modality_preprocessors[modality](inputs))  # (N, L, D)
        if modality == "text":  # the first of the largest ids
            pooled = tokens[torch.arange(len(tokens), device=tokens.device), inputs.argmax(dim=1)]
        else:
            pooled = tokens[:, 0]
        return self.modality_postprocessors[modality](self.modality_heads[modality](pooled))


class Trunk(nn.Module):
    def __init__(self, config: TrunkConfig, modality: Modality) -> None:
        super().__init__()
        norms = [nn.LayerNorm(config.width, eps=BLOCK_EPS)] if modality == "vision" else []
        self.pre_transformer_layer = nn.Sequential(*norms)
        self.blocks = nn.ModuleList(
            Block(config, causal=modality == "text", extra_key=modality in EXTRA_KEY) for _ in range(config.blocks)
        )

    def forward(self, x: Tensor) -> Tensor:  # (N, L, D) -> (N, L, D)
        x = self.pre_transformer_layer(x)
        for block in self.blocks:
            x = block(x)
        return x


class Block(nn.Module):
    def __init__(self, config: TrunkConfig, *, causal: bool, extra_key: bool) -> None:
        super().__init__()
        self.attn = Attention(config.width, config.heads, causal=causal, extra_key=extra_key)
        self.norm_1 = nn.LayerNorm(config.width, eps=BLOCK_EPS)
        self.mlp = Mlp(config.width, config.mlp_width)
        self.norm_2 = nn.LayerNorm(config.width, eps=BLOCK_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class Attention(nn.Module):
    """Self-attention; with `extra_key`, one more learned key and value stand after those of the sequence."""

    def __init__(self, width: int, heads: int, *, causal: bool, extra_key: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))  # rows of q, k, v
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        if extra_key:
            self.bias_k = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, 1, width)))
            self.bias_v = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, 1, width)))
        self.extra_key = extra_key
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # (N, L, D) -> (N, L, D)
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, heads, L, D / heads)
        if self.extra_key:
            k, v = self._appended(k, self.bias_k), self._appended(v, self.bias_v)  # (N, heads, L + 1, D / heads)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _appended(self, keys: Tensor, extra: Tensor) -> Tensor:
        extra = extra.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (1, heads, 1, D / heads)
        return torch.cat([keys, extra.expand(len(keys), -1, -1, -1)], dim=2)


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class TextHead(nn.Module):
    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.LayerNorm(width, eps=BLOCK_EPS), nn.Linear(width, embed_dim, bias=False))

    def forward(self, pooled: Tensor) -> Tensor:
        return self.proj(pooled)


class UnitLength(nn.Module):
    """Normalise to float32 vectors of length 1, so that low precision ends at the head."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x.float(), dim=-1, eps=1e-12)


class LogitScale(nn.Module):
    """Multiplies by a scale that is stored as its logarithm; learned for text, fixed elsewhere."""

    log_logit_scale: Tensor

    def __init__(self, scale: float, *, learned: bool) -> None:
        super().__init__()
        value = torch.tensor(math.log(scale))
        if learned:
            self.log_logit_scale = nn.Parameter(value)
        else:
            self.register_buffer("log_logit_scale", value)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.log_logit_scale.float().exp().clamp(max=MAX_SCALE)


def _tokens(modality: Modality, config: ImageBindConfig) -> nn.Module:
    if modality == "vision":
        return ClipTokens(config.vision)
    if modality == "text":
        return TextTokens(config.text)
    if modality == "audio":
        return AudioTokens(config.audio)
    if modality == "imu":
        return ImuTokens(config.imu)
    return ImageTokens(config.depth, "depth_stem") if modality == "depth" else ImageTokens(config.thermal, "rgbt_stem")


def _head(modality: Modality, config: ImageBindConfig) -> nn.Module:
    width = getattr(config, modality).width
    if modality == "text":
        return TextHead(width, config.embed_dim)
    gap = [nn.Identity()] * (2 if modality == "imu" else 1)  # places of layers without parameters in the checkpoint
    return nn.Sequential(nn.LayerNorm(width, eps=BLOCK_EPS), *gap, nn.Linear(width, config.embed_dim, bias=False))


def _postprocessor(modality: Modality) -> nn.Module:
    if modality == "vision":
        return UnitLength()
    return nn.Sequential(UnitLength(), LogitScale(SCALES[modality], learned=modality == "text"))
