"""Which parameters each training stage of the release trains (paper section 4; docs/upstream/training.md, section 2).

Stage 1 (audio pre-training) trains the audio part alone; stage 2 (audio-video SFT) and stage 3 (DPO) train one LoRA
adapter on attention and feed-forward layers, stage 3 going on with stage 2's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch costs seconds, and configurations need only the names below
    from torch import nn

# A module is adapted when its dotted name ends with one of these.
LORA_TARGET_MODULES = (
    *(f"{attention}.{projection}" for attention in ("self_attn", "cross_attn") for projection in "qkvo"),
    *(f"{expert}.{layer}" for expert in ("ffn", "audio_ffn") for layer in (0, 2)),
)
LORA_R, LORA_ALPHA, LORA_DROPOUT = 64, 16, 0.05

_AUDIO_PARAMETER = re.compile(r"(blocks\.\d+\.)?audio_")
_BRANCH = re.compile(r"(?:^|\.)(audio_|ffn\.|patch_embedding\.|head\.)")


def freeze_for_audio_stage(model: nn.Module) -> list[str]:
    """Leaves only the audio part trainable: patch embedding, head, time projection, experts and their modulation.

    Returns:
        The names of the trainable parameters.

    Raises:
        ValueError: when the model has no audio part.
    """
    names = [name for name, _ in model.named_parameters() if _AUDIO_PARAMETER.match(name)]
    if not names:
        raise ValueError("This model has no audio part, so audio pre-training would train nothing: give a joint one.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in set(names))
    return names


def branch_of(name: str) -> str:
    """Whom a parameter serves, also under a wrapper's prefix: "audio" or "video" alone, or "shared".

    A feed-forward that serves both modalities (`ffn: shared`) cannot be told by its name and counts as the video's.
    """
    match = _BRANCH.search(name)
    if match is None:
        return "shared"
    return "audio" if match[1] == "audio_" else "video"
