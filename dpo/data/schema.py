"""Columns of the training dataset on disk, which has one row per pair. Imports neither torch nor datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.data.latent_schema import MODALITIES, NEGATIVE_TEXT_NAME, features_of

if TYPE_CHECKING:
    from datasets import Features

__all__ = ["COLUMNS", "ENCODERS_NAME", "MODALITIES", "NEGATIVE_TEXT_NAME", "SIDES", "dataset_features"]

SIDES = ("chosen", "rejected")
ENCODERS_NAME = "encoders.json"  # the model whose codecs and text encoder made the rows: "model", "identity"

COLUMNS = {
    "pair_id": "string",  # unique; the random draws of a pair depend on it
    "prompt_id": "string",  # a prompt may have several pairs
    "prompt": "string",
    "margin": "float32",  # of the ranking, summed over modalities; null for people's choices of unranked candidates
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
    """Return the columns as features of the `datasets` library."""
    return features_of(COLUMNS)
