"""Pairs in TRL's preference format with explicit prompt: `prompt`, `chosen`, `rejected`, each a list of messages."""

from __future__ import annotations

from typing import Any

import pandas as pd

Message = dict[str, Any]


def trl_view(pairs: pd.DataFrame) -> pd.DataFrame:
    """Convert pairs to one row each with `prompt_id` and TRL's three columns.

    prompt: `[{"role": "user", "content": <caption>}]`.
    chosen, rejected: `[{"role": "assistant", "content": [{"type": "video", "path": ...}, {"type": "audio", ...}]}]`,
        the format that transformers' processors read. The audio part is left out if the clip has no sound file.

    TRL's dataset functions (`is_conversational`, `unpair_preference_dataset`, ...) accept this table. TRL's DPO trainer
    learns text only; `dpo.train` trains a generator on the clips. This table is for reward models, for custom trainers
    and for the dataset viewer.
    """
    columns: dict[str, Any] = {
        "prompt_id": pairs["prompt_id"].to_numpy(),
        "prompt": [[{"role": "user", "content": text}] for text in pairs["prompt"]],
    }
    for side in ("chosen", "rejected"):
        videos = pairs[f"{side}_video_path"]
        sounds = pairs.get(f"{side}_audio_path", pd.Series(None, index=pairs.index, dtype=object))
        columns[side] = [_clip(video, sound) for video, sound in zip(videos, sounds, strict=True)]
    return pd.DataFrame(columns)


def _clip(video: str, sound: str | None) -> list[Message]:
    parts = [{"type": "video", "path": video}]
    if isinstance(sound, str):  # a missing one is NaN in pandas
        parts.append({"type": "audio", "path": sound})
    return [{"role": "assistant", "content": parts}]
