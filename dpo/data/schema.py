"""The training dataset on disk: one row per pair, flat columns. Imports neither torch nor datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.data.latent_schema import MODALITIES, NEGATIVE_TEXT_NAME, features_of

if TYPE_CHECKING:
    from datasets import Features

__all__ = ["COLUMNS", "ENCODERS_NAME", "MODALITIES", "NEGATIVE_TEXT_NAME", "SIDES", "dataset_features"]

SIDES = ("chosen", "rejected")
ENCODERS_NAME = "encoders.json"  # whose codecs and text encoder made the rows: "model", "identity"

COLUMNS = {
    "pair_id": "string",  # unique; its draws are a function of it
    "prompt_id": "string",  # a prompt may give several pairs
    "prompt": "string",
    "margin": "float32",  # of the ranking, summed over modalities; null where people chose among unranked candidates
    "text_embeds": "list<float16>",  # (text_length, text_dim), the caption without padding
    "text_length": "int32",
    "text_dim": "int32",
    "chosen_video_latents": "list<float16>",  # video_latents_shape
    "chosen_audio_latents": "list<float16>",  # audio_latents_shape
    "rejected_video_latents": "list<float16>",
    "rejected_audio_latents": "list<float16>",
    "video_latents_shape": "list<int32>",  # (C, T, H, W)
    "audio_latents_shape": "list<int32>",  # (C, T, M)
    "num_frames": "int32",
    "height": "int32",  # pixels
    "width": "int32",
    "fps": "float32",
}


def dataset_features() -> Features:
    """The columns for `datasets`."""
    return features_of(COLUMNS)
