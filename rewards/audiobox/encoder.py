"""WavLM's layer results from the modules of transformers' WavLMModel, driven with AudioBox's own frame mask.

Driven from here, and not by its `forward`, for three reasons: its mask is a frame short on partial windows
(docs/upstream/audiobox.md, section 7), it materialises the attention weights, and it spends as much on padding as on
sound. What
lies after the last valid frame cannot reach a valid one, except by the statistics of the first normalisation: it is
zeroed before the positional convolution and masked in attention. So it is dropped after that normalisation.

Shapes: W windows, S samples, L frames up to the last valid one in the batch, C channels, H heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from transformers import WavLMModel
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    from rewards.audiobox.config import EncoderConfig


def layer_results(
    wavlm: WavLMModel, sizes: EncoderConfig, waveform: Tensor, num_valid: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Input of the first layer and output of each, (W, L, C), and the mask (W, L), True for padding.

    Args:
        waveform: float32 (W, S) at 16 kHz; sound, then zeros.
        num_valid: int64 (W,), how many samples of each window are sound; at least one.
    """
    valid_frames = count_valid_frames(sizes, waveform.shape[1], num_valid)  # (W,)
    length = int(valid_frames.max())
    padding = torch.arange(length, device=waveform.device) >= valid_frames.to(waveform.device)[:, None]  # (W, L)
    encoder: Any = wavlm.encoder  # a type checker sees no more in it than modules
    features = _convolve(wavlm.feature_extractor.conv_layers, sizes, waveform, length)  # (W, L, C)
    hidden = wavlm.feature_projection(features)[0].masked_fill(padding[..., None], 0.0)
    hidden = encoder.dropout(encoder.layer_norm(hidden + encoder.pos_conv_embed(hidden)))
    bias = encoder.layers[0].attention.compute_bias(length, length)  # (H, L, L), which all layers share
    masked_keys = padding if int(valid_frames.min()) < length else None
    results = [hidden]
    for layer in encoder.layers:
        hidden = layer.layer_norm(hidden + layer.dropout(_attend(layer.attention, hidden, bias, masked_keys)))
        hidden = layer.final_layer_norm(hidden + layer.feed_forward(hidden))
        results.append(hidden)
    return results, padding


def count_valid_frames(sizes: EncoderConfig, num_samples: int, num_valid: Tensor) -> Tensor:
    """Frames of each window that are no padding, (W,): a frame is padding only if all its samples are.

    The samples that do not divide by the number of frames belong to none (docs/upstream/audiobox.md, section 4).
    """
    num_frames = sizes.num_frames(num_samples)
    assert num_frames > 0, f"{num_samples} samples are less than the convolutions reach"
    samples_per_frame = num_samples // num_frames
    return (-(-num_valid // samples_per_frame)).clamp(max=num_frames)


def _convolve(layers: Any, sizes: EncoderConfig, waveform: Tensor, length: int) -> Tensor:
    """The first `length` frames (W, L, C); the waveform stays float32 until its levels are normalised."""
    needed = length  # of the first layer's outputs
    for kernel, stride in zip(reversed(sizes.conv_kernel[1:]), reversed(sizes.conv_stride[1:]), strict=True):
        needed = (needed - 1) * stride + kernel
    first, rest = layers[0], layers[1:]
    hidden = first.layer_norm(first.conv(waveform[:, None]))  # statistics over the whole window, zeros included
    hidden = first.activation(hidden[..., :needed])
    for layer in rest:
        hidden = layer(hidden.to(layer.conv.weight.dtype))
    return hidden.transpose(1, 2)


def _attend(attention: WavLMAttention, hidden: Tensor, bias: Tensor, masked_keys: Tensor | None) -> Tensor:
    """Self-attention (W, L, C) with the gated position bias of WavLM; keys that are True in (W, L) are left out."""
    mask = _gated_bias(attention, hidden, bias)  # (W, H, L, L)
    if masked_keys is not None:
        mask = mask.masked_fill(masked_keys[:, None, None, :], float("-inf"))
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (_split_heads(attention, project(hidden)) for project in projections)  # (W, H, L, C/H)
    dropout = attention.dropout if attention.training else 0.0
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return attention.out_proj(attended.transpose(1, 2).flatten(2))


def _gated_bias(attention: WavLMAttention, hidden: Tensor, bias: Tensor) -> Tensor:
    """The position bias (W, H, L, L), scaled for each query by what the query holds."""
    gates = attention.gru_rel_pos_linear(_split_heads(attention, hidden))  # (W, H, L, 8)
    update, reset = gates.unflatten(-1, (2, 4)).sum(-1).sigmoid().split(1, dim=-1)  # (W, H, L, 1) each
    return (update * (reset * attention.gru_rel_pos_const - 1.0) + 2.0) * bias


def _split_heads(attention: WavLMAttention, hidden: Tensor) -> Tensor:
    return hidden.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # (W, L, C) -> (W, H, L, C/H)
