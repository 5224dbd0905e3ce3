"""Selection of the parameters that each training stage of the release trains.

Source: paper section 4; docs/upstream/training.md, section 2.

Stage 1 (audio pre-training) trains the audio part alone; stage 2 (audio-video SFT) and stage 3 (DPO) train one LoRA
adapter on attention and feed-forward layers; stage 3 continues that of stage 2.
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
    """Freeze all but the audio part: patch embedding, head, time projection, experts and their modulation.

    Returns:
        The names of the trainable parameters.

    Raises:
        ValueError: the model has no audio part.
    """
    names = [name for name, _ in model.named_parameters() if _AUDIO_PARAMETER.match(name)]
    if not names:
        raise ValueError("This model has no audio part, so audio pre-training would train nothing: give a joint one.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in set(names))
    return names


def branch_of(name: str) -> str:
    """Return "audio" or "video" for a parameter of one modality, else "shared"; a wrapper's prefix is allowed.

    A feed-forward that serves both modalities (`ffn: shared`) has the same name as the video's and counts as "video".
    """
    match = _BRANCH.search(name)
    if match is None:
        return "shared"
    return "audio" if match[1] == "audio_" else "video"
