"""The published network's arithmetic in a straightforward form, which `dit_step.py` compares with this project's.

Rotary multiplication is complex in float64, samples of a batch are processed in loops, and norms and modulation are
separate operations. It uses the weights of this project's module, so both compute the same function (checked before
timing).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from model.javisdit.network.layers import sinusoidal_embedding
from model.javisdit.network.positions import ROPE_THETA, audio_position_ids, video_position_ids
from model.javisdit.network.transformer import JointBlock, JointDiT


class PublishedArithmetic(torch.nn.Module):
    """Published forward pass of a joint MS-MoE network with patches (1, 2, 2) and (2, 2).

    Args:
        model: network whose weights are used.
        fused_attention: true for torch's fused kernel in place of the release's flash-attention, which does not run on
            CPUs; false for the definition softmax(q k^T / sqrt(d)) v. Both process one sample at a time.
    """

    def __init__(self, model: JointDiT, fused_attention: bool) -> None:
        super().__init__()
        self.model = model
        self.fused_attention = fused_attention

    def forward(
        self, video: Tensor, audio: Tensor, timestep: Tensor, text: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute the same velocities as `JointDiT.forward`, with both modalities present."""
        model, dim = self.model, self.model.config.dim
        video_tokens, audio_tokens = model.patch_embedding(video), model.audio_patch_embedding(audio)
        grids = tuple(video_tokens.shape[2:]), tuple(audio_tokens.shape[2:])
        turns = self._turns(*grids)
        count = grids[0][0] * grids[0][1] * grids[0][2]
        hidden = torch.cat([video_tokens.flatten(2).transpose(1, 2), audio_tokens.flatten(2).transpose(1, 2)], dim=1)
        text = text.clone()
        text[mask == 0] = 0.0
        context = model.text_embedding(text)
        time = model.time_embedding(sinusoidal_embedding(timestep, model.config.freq_dim).float())
        shared = model.time_projection(time).unflatten(1, (6, dim))
        own = model.audio_time_projection(time).unflatten(1, (3, dim))
        for block in model.blocks:
            inputs = (block, hidden, shared, own, turns, context, count)
            if model.gradient_checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(self._block, *inputs, use_reentrant=False)
            else:
                hidden = self._block(*inputs)
        video_patches = self._head(model.head, hidden[:, :count], time)
        audio_patches = self._head(model.audio_head, hidden[:, count:], time)
        video = torch.stack([_unpatchify_video(patches, grids[0]) for patches in video_patches])
        audio = torch.stack([_unpatchify_audio(patches, grids[1]) for patches in audio_patches])
        return video, audio

    def _turns(self, video_grid: tuple, audio_grid: tuple) -> Tensor:
        """Return the rotations, complex128 (N, head_dim // 2), computed again in every forward pass."""
        head_dim = self.model.config.head_dim
        third = 2 * (head_dim // 6)
        ids = torch.cat([video_position_ids(video_grid), audio_position_ids("ta_rope", video_grid, audio_grid)])
        ids = ids.to(self.model.device)
        parts = []
        for axis, size in enumerate((head_dim - 2 * third, third, third)):
            frequencies = 1.0 / ROPE_THETA ** (torch.arange(0, size, 2, dtype=torch.float64, device=ids.device) / size)
            angles = torch.outer(ids[:, axis], frequencies)
            parts.append(torch.polar(torch.ones_like(angles), angles))
        return torch.cat(parts, dim=-1)

    def _block(
        self, block: JointBlock, hidden: Tensor, shared: Tensor, own: Tensor, turns: Tensor, context: Tensor, count: int
    ) -> Tensor:
        rows = (block.modulation + shared).chunk(6, dim=1)
        normed = _layer_norm(hidden) * (1 + rows[1]) + rows[0]
        attention = block.self_attn
        query = _rotate(self._heads(attention, _rms_norm(attention.norm_q, attention.q(normed))), turns)
        key = _rotate(self._heads(attention, _rms_norm(attention.norm_k, attention.k(normed))), turns)
        value = self._heads(attention, attention.v(normed))
        hidden = hidden + attention.o(self._attend(query, key, value)) * rows[2]

        attention, normed = block.cross_attn, block.norm3(hidden.to(self.model.dtype))
        query = self._heads(attention, _rms_norm(attention.norm_q, attention.q(normed)))
        key = self._heads(attention, _rms_norm(attention.norm_k, attention.k(context)))
        value = self._heads(attention, attention.v(context))
        hidden = hidden + attention.o(self._attend(query, key, value))

        video, audio = hidden[:, :count], hidden[:, count:]
        video = video + block.ffn(_layer_norm(video) * (1 + rows[4]) + rows[3]) * rows[5]
        own_rows = (block.audio_modulation.param + own).chunk(3, dim=1)
        audio = audio + block.audio_ffn(_layer_norm(audio) * (1 + own_rows[1]) + own_rows[0]) * own_rows[2]
        return torch.cat([video, audio], dim=1)

    def _heads(self, attention: torch.nn.Module, projected: Tensor) -> Tensor:
        return projected.view(*projected.shape[:2], attention.num_heads, -1)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        samples = []
        for q, k, v in zip(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), strict=True):
            if self.fused_attention:
                attended = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
            else:
                attended = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v
            samples.append(attended.transpose(0, 1).flatten(1))
        return torch.stack(samples)

    def _head(self, head: torch.nn.Module, hidden: Tensor, time: Tensor) -> Tensor:
        shift, scale = (head.modulation + time.unsqueeze(1)).chunk(2, dim=1)
        return head.head(_layer_norm(hidden) * (1 + scale) + shift)


def _rms_norm(norm: torch.nn.Module, hidden: Tensor) -> Tensor:
    hidden = hidden.float()
    return (hidden * torch.rsqrt(hidden.pow(2).mean(dim=-1, keepdim=True) + norm.eps)) * norm.weight


def _layer_norm(hidden: Tensor) -> Tensor:
    return F.layer_norm(hidden, hidden.shape[-1:], eps=1e-6)


def _rotate(hidden: Tensor, turns: Tensor) -> Tensor:
    """Rotate (B, N, heads, head_dim), one sample at a time, with channel pairs as complex numbers in float64."""
    samples = []
    for sample in hidden:
        pairs = torch.view_as_complex(sample.double().reshape(*sample.shape[:-1], -1, 2))
        samples.append(torch.view_as_real(pairs * turns[:, None]).flatten(2))
    return torch.stack(samples).to(hidden.dtype)


def _unpatchify_video(patches: Tensor, grid: tuple[int, ...]) -> Tensor:
    frames, height, width = grid
    split = patches.view(frames, height, width, 1, 2, 2, -1)
    return torch.einsum("fhwpqrc->cfphqwr", split).reshape(-1, frames, 2 * height, 2 * width)


def _unpatchify_audio(patches: Tensor, grid: tuple[int, ...]) -> Tensor:
    steps, mel = grid
    return torch.einsum("fmpqc->cfpmq", patches.view(steps, mel, 2, 2, -1)).reshape(-1, 2 * steps, 2 * mel)
