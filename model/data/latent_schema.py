"""Columns of prepared clips: one row per clip, flat columns. Imports neither torch nor datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Features

MODALITIES = ("video", "audio")  # in the order of their tokens
NEGATIVE_TEXT_NAME = "negative_text.safetensors"  # "embeds" (text_len, text_dim) float32, zero where padded

COLUMNS = {
    "clip_id": "string",
    "prompt": "string",
    "text_embeds": "list<float16>",  # (text_length, text_dim), the caption without padding
    "text_length": "int32",
    "text_dim": "int32",
    "video_latents": "list<float16>",  # video_latents_shape; empty where the clip has sound only
    "video_latents_shape": "list<int32>",  # (C, T, H, W), empty where the latents are
    "audio_latents": "list<float16>",  # audio_latents_shape
    "audio_latents_shape": "list<int32>",  # (C, T, M)
    "num_frames": "int32",
    "height": "int32",  # pixels
    "width": "int32",
    "fps": "float32",
}


def dataset_features() -> Features:
    """Return the columns as features of `datasets`."""
    return features_of(COLUMNS)


def features_of(columns: Mapping[str, str]) -> Features:
    """Return features of `datasets` for columns with types named as in `COLUMNS`."""
    from datasets import Features, List, Value

    def kind(name: str) -> Any:
        return List(Value(name[5:-1])) if name.startswith("list<") else Value(name)

    return Features({column: kind(name) for column, name in columns.items()})
