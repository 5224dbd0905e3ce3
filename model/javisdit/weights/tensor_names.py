"""Tensor names of the published checkpoints: translation between layouts, and inference of sizes from tensor shapes.

This project uses the release's names, which for the video part are Wan2.1's; only other layouts need a table.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from core.checkpoint_kinds import looks_like

_WAN_DIFFUSERS = (  # diffusers' WanTransformer3DModel -> Wan2.1
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"_attn\.to_(q|k|v)\.", r"_attn.\1."),
    (r"_attn\.to_out\.0\.", "_attn.o."),
    (r"\.norm2\.", ".norm3."),
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
)

_UMT5_ORIGINAL = (  # Wan2.1's text encoder -> transformers' UMT5Stack
    (r"^token_embedding\.", "embed_tokens."),
    (r"^norm\.", "final_layer_norm."),
    (r"^blocks\.(\d+)\.norm1\.", r"block.\1.layer.0.layer_norm."),
    (r"^blocks\.(\d+)\.norm2\.", r"block.\1.layer.1.layer_norm."),
    (r"^blocks\.(\d+)\.attn\.", r"block.\1.layer.0.SelfAttention."),
    (r"^blocks\.(\d+)\.pos_embedding\.embedding\.", r"block.\1.layer.0.SelfAttention.relative_attention_bias."),
    (r"^blocks\.(\d+)\.ffn\.gate\.0\.", r"block.\1.layer.1.DenseReluDense.wi_0."),
    (r"^blocks\.(\d+)\.ffn\.fc1\.", r"block.\1.layer.1.DenseReluDense.wi_1."),
    (r"^blocks\.(\d+)\.ffn\.fc2\.", r"block.\1.layer.1.DenseReluDense.wo."),
)

_WAN_VAE_ORIGINAL = (  # Wan2.1's video autoencoder -> diffusers' AutoencoderKLWan; decoder blocks are numbered below
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(\w+)\.conv1\.", r"\1.conv_in."),
    (r"^(\w+)\.head\.0\.", r"\1.norm_out."),
    (r"^(\w+)\.head\.2\.", r"\1.conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"^encoder\.downsamples\.", "encoder.down_blocks."),
)
_VAE_LAYERS_PER_UP_BLOCK = 4  # three residual blocks, then the upsampler


def from_wan_diffusers(name: str) -> str:
    """Translate a tensor name of diffusers' WanTransformer3DModel to Wan2.1's."""
    return _rename(name, _WAN_DIFFUSERS)


def from_umt5_original(name: str) -> str:
    """Translate a tensor name of Wan2.1's text encoder to transformers' UMT5Stack."""
    return _rename(name, _UMT5_ORIGINAL)


def from_wan_vae_original(name: str) -> str:
    """Translate a tensor name of Wan2.1's video autoencoder to diffusers' AutoencoderKLWan."""
    name = _rename(name, _WAN_VAE_ORIGINAL)
    return re.sub(r"^decoder\.upsamples\.(\d+)\.", _up_block, name)


def is_wan_diffusers(names: Collection[str]) -> bool:
    """Return true if the tensor names are those of diffusers' WanTransformer3DModel."""
    return any(name.startswith("condition_embedder.") for name in names)


def is_lora(name: str) -> bool:
    """Return true if a tensor is one of the two factors of a LoRA update, stored among the base weights."""
    return ".lora_A." in name or ".lora_B." in name


def infer_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int | bool | str]:
    """Infer the release's model settings from tensor shapes; the number of heads cannot be inferred.

    Raises:
        ValueError: if the tensors are not a complete transformer of this family.
    """
    video, audio = (shapes.get(f"{prefix}patch_embedding.weight") for prefix in ("", "audio_"))
    ffn = shapes.get("blocks.0.ffn.0.weight") or shapes.get("blocks.0.audio_ffn.0.weight")
    time, text = shapes.get("time_embedding.0.weight"), shapes.get("text_embedding.0.weight")
    if not (video or audio) or ffn is None or time is None or text is None:
        raise ValueError(
            f"These tensors are no complete Wan2.1 or JavisDiT transformer: they look like {looks_like(shapes)}. Give "
            "all shards of one checkpoint."
        )
    sizes: dict[str, int | bool | str] = {
        "model_type": {(True, True): "t2av", (True, False): "t2v", (False, True): "t2a"}[bool(video), bool(audio)],
        "dim": ffn[1],
        "ffn_dim": ffn[0],
        "num_layers": 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
        "freq_dim": time[1],
        "text_dim": text[1],
        "qk_norm": "blocks.0.self_attn.norm_q.weight" in shapes,
        "cross_attn_norm": "blocks.0.norm3.weight" in shapes,
        "dual_ffn": not audio or "blocks.0.audio_ffn.0.weight" in shapes,
    }
    sizes |= {"in_dim": video[1]} if video else {}
    return sizes | ({"audio_in_dim": audio[1]} if audio else {})


def _rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def _up_block(match: re.Match[str]) -> str:
    block, place = divmod(int(match[1]), _VAE_LAYERS_PER_UP_BLOCK)
    kind = "upsamplers.0" if place == _VAE_LAYERS_PER_UP_BLOCK - 1 else f"resnets.{place}"
    return f"decoder.up_blocks.{block}.{kind}."
