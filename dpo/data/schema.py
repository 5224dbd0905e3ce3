"""Columns of the training datasets on disk: one row per pair, or per candidate of a group.

Imports neither torch nor datasets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.data.latent_schema import MODALITIES, NEGATIVE_TEXT_NAME, features_of

if TYPE_CHECKING:
    from datasets import Features

__all__ = [
    "CANDIDATES",
    "COLUMNS",
    "ENCODERS_NAME",
    "GROUP_COLUMNS",
    "MODALITIES",
    "NEGATIVE_TEXT_NAME",
    "PAIRS",
    "REWARDS_NAME",
    "SIDES",
    "DatasetForm",
    "dataset_features",
    "group_features",
]

SIDES = ("chosen", "rejected")
ENCODERS_NAME = "encoders.json"  # the model whose codecs and text encoder made the rows: "model", "identity"
REWARDS_NAME = "rewards.json"  # of groups: reward column -> "higher_is_better", "modality"

_TEXT = {
    "text_embeds": "list<float16>",  # (text_length, text_dim), the caption without padding
    "text_length": "int32",
    "text_dim": "int32",
}
_SHAPES = {
    "video_latents_shape": "list<int32>",  # (C, T, H, W)
    "audio_latents_shape": "list<int32>",  # (C, T, M)
    "num_frames": "int32",
    "height": "int32",  # pixels
    "width": "int32",
    "fps": "float32",
}

COLUMNS = {
    "pair_id": "string",  # unique; the random draws of a pair depend on it
    "prompt_id": "string",  # a prompt may have several pairs
    "prompt": "string",
    "margin": "float32",  # of the ranking, summed over modalities; null for people's choices of unranked candidates
    **_TEXT,
    "chosen_video_latents": "list<float16>",  # video_latents_shape
    "chosen_audio_latents": "list<float16>",  # audio_latents_shape
    "rejected_video_latents": "list<float16>",
    "rejected_audio_latents": "list<float16>",
    **_SHAPES,
}

# Besides these, a dataset of groups has one float64 column per reward, NaN where the score failed.
GROUP_COLUMNS = {
    "candidate_id": "string",  # unique; the random draws of a candidate depend on it
    "prompt_id": "string",  # candidates of one prompt are a group
    "prompt": "string",
    "is_ground_truth": "bool",
    "seed": "int64",  # of the sampler; null for ground truth
    "model": "string",  # identity of the model that sampled the candidate; null where the table does not record it
    "guidance_scale": "float64",  # null: the default of the model, or not recorded
    "num_inference_steps": "int32",  # null: the same
    **_TEXT,
    "video_latents": "list<float16>",  # video_latents_shape
    "audio_latents": "list<float16>",  # audio_latents_shape
    **_SHAPES,
}


@dataclass(frozen=True)
class DatasetForm:
    """A kind of training dataset: its items, their key and their columns.

    Attributes:
        item: name of a row in messages.
        key: column with the unique id of a row.
        columns: column -> type, as in `model.data.latent_schema`.
        latents: column of latents -> (modality, words for it in messages).
        other: question in the message for a dataset of another form.
        reasons: where the reasons for missing rows are, in messages.
    """

    item: str
    key: str
    columns: Mapping[str, str]
    latents: Mapping[str, tuple[str, str]]
    other: str
    reasons: str


PAIRS = DatasetForm(
    "pair",
    "pair_id",
    COLUMNS,
    {f"{side}_{name}_latents": (name, f"{side} {name}") for side in SIDES for name in MODALITIES},
    "is it the pairs dataset, or one of groups, for the objective nft?",
    "ranking.json of the pairs gives the reason per prompt",
)
CANDIDATES = DatasetForm(
    "candidate",
    "candidate_id",
    GROUP_COLUMNS,
    {f"{name}_latents": (name, name) for name in MODALITIES},
    "is it one of pairs, for the objective dpo?",
    "failures.parquet gives the reason per candidate",
)


def dataset_features() -> Features:
    """Return the columns of pairs as features of the `datasets` library."""
    return features_of(COLUMNS)


def group_features(rewards: tuple[str, ...] = ()) -> Features:
    """Return the columns of candidates with these rewards as features of the `datasets` library."""
    return features_of(GROUP_COLUMNS | dict.fromkeys(rewards, "float64"))
