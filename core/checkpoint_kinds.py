"""Detection of a checkpoint's kind from its tensor names, for error messages."""

from __future__ import annotations

import re
from collections.abc import Collection

_KINDS = (  # (pattern that some name matches, kind of checkpoint); the first match is used
    (r"rm_head\.", "a VideoAlign (VideoReward) model"),
    (r"^base_model\.model\..*\.lora_A\.", "a LoRA adapter in peft layout"),
    (r"\.lora_A\.default\.", "a JavisDiT training checkpoint with unmerged LoRA tensors"),
    (r"^_orig_mod\.", "a model that was saved while compiled"),
    (r"^(module\.)?video_encoder\.layer1\.", "CAVP"),
    (r"^module\.", "a model that was saved inside a distributed wrapper"),
    (r"^condition_embedder\.", "a Wan2.1 transformer in Diffusers naming"),
    (r"pos_embedding\.embedding", "the original UMT5 text encoder of Wan2.1"),
    (r"SelfAttention\.relative_attention_bias", "a UMT5 text encoder in transformers naming"),
    (r"^encoder\.downsamples\.", "the original video autoencoder of Wan2.1"),
    (r"^encoder\.down_blocks\.\d+\.conv1\.", "a Wan2.1 video autoencoder in Diffusers naming"),
    (r"^encoder\.down_blocks\.\d+\.resnets\.", "a 2-D AutoencoderKL of diffusers"),
    (r"^resblocks\.", "a HiFi-GAN vocoder"),
    (r"^(model\.)?wavlm_model\.", "AudioBox-Aesthetics"),
    (r"^modality_trunks\.", "ImageBind"),
    (r"^vfeat_extractor\.", "Synchformer"),
    (r"^Conv3d_1a_7x7\.", "I3D"),
    (r"^audio\.fbsp\.", "AudioCLIP"),
    (r"^(model\.)?visual\.blocks\.", "a Qwen2-VL model without a reward head"),
)


def looks_like(names: Collection[str]) -> str:
    """Return the kind of checkpoint that has these names, in words for an error message."""
    for pattern, kind in _KINDS:
        if any(re.search(pattern, name) for name in names):
            return kind
    video, audio = ("patch_embedding.weight" in names), ("audio_patch_embedding.weight" in names)
    experts = any(".audio_ffn." in name for name in names)
    return {
        (True, True): f"a joint JavisDiT model with {'MS-MoE blocks' if experts else 'a shared feed-forward'}",
        (False, True): "an audio-only (stage 1) JavisDiT model",
        (True, False): "a Wan2.1 transformer, or a video-only JavisDiT model",
    }.get((video, audio), f"no known kind (names such as {', '.join(sorted(names)[:2]) or 'none at all'})")
