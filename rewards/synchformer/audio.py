"""The audio encoder: a spectrogram transformer (AST) and a summary over frequency.

Source: docs/upstream/synchformer.md, section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.synchformer.config import SynchformerConfig
from rewards.synchformer.layers import Aggregator, attend, learned

EPS = 1e-12  # as AST was trained; the aggregator has its own
NUM_EXTRA_TOKENS = 2  # class and distillation token


class AudioEncoder(nn.Module):
    """Mel spectrogram of a segment to one vector per step of time. Names are those of the published state dict."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        self.bands, self.steps = config.audio_bands, config.audio_steps
        self.ast = _Ast(config)
        self.freq_attn_agg = Aggregator(config.audio_width, config.audio_heads, config.mlp_ratio)

    def forward(self, mel: Tensor) -> Tensor:
        """Mel (B, 1, num_mels, mel_frames) -> (B, audio_steps, audio_width)."""
        patches = self.ast(mel)[:, NUM_EXTRA_TOKENS:].unflatten(1, (self.bands, self.steps))
        columns = patches.transpose(1, 2)  # (B, steps, bands, C)
        return self.freq_attn_agg(columns.flatten(0, 1)).unflatten(0, (-1, self.steps))


class _Ast(nn.Module):
    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.layernorm = nn.LayerNorm(config.audio_width, eps=EPS)

    def forward(self, mel: Tensor) -> Tensor:
        return self.layernorm(self.encoder(self.embeddings(mel)))


class _Embeddings(nn.Module):
    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width = config.audio_width
        self.cls_token = learned(1, 1, width)
        self.distillation_token = learned(1, 1, width)
        num_tokens = NUM_EXTRA_TOKENS + config.audio_bands * config.audio_steps
        self.position_embeddings = learned(1, num_tokens, width)
        self.patch_embeddings = _PatchEmbeddings(config)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, 1, num_mels, mel_frames) -> (B, 2 + bands * steps, C), low frequencies first."""
        patches = self.patch_embeddings(mel)
        extra = torch.cat([self.cls_token, self.distillation_token], dim=1).expand(len(mel), -1, -1)
        return torch.cat([extra, patches], dim=1) + self.position_embeddings


class _PatchEmbeddings(nn.Module):
    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        self.projection = nn.Conv2d(1, config.audio_width, config.audio_patch, stride=config.audio_stride)

    def forward(self, mel: Tensor) -> Tensor:
        return self.projection(mel).flatten(2).transpose(1, 2)


class _Encoder(nn.Module):
    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.audio_depth))

    def forward(self, tokens: Tensor) -> Tensor:
        for layer in self.layer:
            tokens = layer(tokens)
        return tokens


class _Layer(nn.Module):
    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width, hidden = config.audio_width, config.mlp_ratio * config.audio_width
        self.attention = _Attention(width, config.audio_heads)
        self.intermediate = _Dense(width, hidden)
        self.output = _Dense(hidden, width)
        self.layernorm_before = nn.LayerNorm(width, eps=EPS)
        self.layernorm_after = nn.LayerNorm(width, eps=EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.layernorm_before(tokens))
        return tokens + self.output(F.gelu(self.intermediate(self.layernorm_after(tokens))))


class _Attention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.output = _Dense(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (self.attention[name](tokens) for name in ("query", "key", "value"))
        return self.output(attend(query, key, value, self.num_heads))


class _Dense(nn.Module):
    """A linear layer under the name that AST gives it."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width_in, width_out)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dense(tokens)
