"""Synchformer: logits over a grid of offsets by which the sound of a clip is ahead of its picture.

Written from docs/upstream/synchformer.md alone; loads the published state dict.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.synchformer.audio import AudioEncoder
from rewards.synchformer.config import SynchformerConfig
from rewards.synchformer.layers import attend, learned
from rewards.synchformer.visual import VisualEncoder

EPS = 1e-5  # of the fusion part


class Synchformer(nn.Module):
    """Two encoders, each for one segment at a time, and a transformer over the vectors of a window of segments."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        self.config = config
        self.vfeat_extractor = VisualEncoder(config)
        self.afeat_extractor = AudioEncoder(config)
        self.vproj = nn.Linear(config.visual_width, config.fusion_width)
        self.aproj = nn.Linear(config.audio_width, config.fusion_width)
        self.transformer = _Fusion(config)

    def forward(self, frames: Tensor, mel: Tensor) -> Tensor:
        """Logits of a window, from its segments. Gradients reach all parts.

        Args:
            frames: (B, num_segments, frames_per_segment, 3, image_size, image_size) in [-1, 1].
            mel: (B, num_segments, 1, num_mels, mel_frames), normalised.

        Returns:
            (B, num_offsets).

        Raises:
            ValueError: for another number of segments than that of a window.
        """
        visual = self.encode_video(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        audio = self.encode_audio(mel.flatten(0, 1)).unflatten(0, mel.shape[:2])
        return self.fuse(visual, audio)

    def encode_video(self, frames: Tensor) -> Tensor:
        """Segments (N, frames_per_segment, 3, image_size, image_size) in [-1, 1] -> (N, tubes, visual_width)."""
        return self.vfeat_extractor(frames)

    def encode_audio(self, mel: Tensor) -> Tensor:
        """Segments (N, 1, num_mels, mel_frames) -> (N, audio_steps, audio_width)."""
        return self.afeat_extractor(mel)

    def fuse(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Logits (B, num_offsets) of the vectors (B, num_segments, tubes | audio_steps, width) of a window."""
        for name, vectors in (("video", visual), ("audio", audio)):
            if vectors.shape[1] != self.config.num_segments:
                raise ValueError(
                    f"A window has {self.config.num_segments} segments, but {name} has {vectors.shape[1]}. Cut or "
                    "repeat the segments with rewards.synchformer.windows.window_indices."
                )
        return self.transformer(self.vproj(visual.flatten(1, 2)), self.aproj(audio.flatten(1, 2)))


class _Fusion(nn.Module):
    """Transformer over a window. The names OFF_tok (the output token) and MOD_tok (the separator) are published."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width = config.fusion_width
        self.OFF_tok = learned(1, 1, width)
        self.MOD_tok = learned(1, 1, width)
        self.vis_in_lnorm = nn.LayerNorm(width, eps=EPS)
        self.aud_in_lnorm = nn.LayerNorm(width, eps=EPS)
        self.pos_emb_cfg = _Positions(config)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.fusion_depth))
        self.ln_f = nn.LayerNorm(width, eps=EPS)
        self.off_head = nn.Linear(width, config.num_offsets)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        """Projected vectors (B, segments * tubes | segments * steps, C) -> float32 (B, num_offsets)."""
        off, mod = (token.expand(len(visual), -1, -1) for token in (self.OFF_tok, self.MOD_tok))
        tokens = torch.cat([off, self.vis_in_lnorm(visual), mod, self.aud_in_lnorm(audio)], dim=1)
        tokens = self.pos_emb_cfg(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        # In bfloat16 the likeliest offsets tie, and the first of them, not the best, would be taken.
        head = self.off_head
        return F.linear(self.ln_f(tokens)[:, 0].float(), head.weight.float(), head.bias.float())


class _Positions(nn.Module):
    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        self.pos_emb = learned(1, config.fusion_tokens, config.fusion_width)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.pos_emb


class _Block(nn.Module):
    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width, hidden = config.fusion_width, config.mlp_ratio * config.fusion_width
        self.ln1 = nn.LayerNorm(width, eps=EPS)
        self.attn = _Attention(width, config.fusion_heads)
        self.ln2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.ln1(tokens))
        return tokens + self.mlp(self.ln2(tokens))


class _Attention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.key, self.query, self.value, self.proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.proj(attend(self.query(tokens), self.key(tokens), self.value(tokens), self.num_heads))
