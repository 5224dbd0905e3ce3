"""Pairs in TRL's preference format with an explicit prompt: `prompt`, `chosen`, `rejected`, each a list of messages."""

from __future__ import annotations

from typing import Any

import pandas as pd

Message = dict[str, Any]


def trl_view(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row per pair: `prompt_id` and the three columns of TRL.

    prompt: `[{"role": "user", "content": <caption>}]`.
    chosen, rejected: `[{"role": "assistant", "content": [{"type": "video", "path": ...}, {"type": "audio", ...}]}]`,
        the form in which transformers' processors find clips; without the audio part where the clip has no sound file.

    TRL's dataset functions (`is_conversational`, `unpair_preference_dataset`, ...) take it as it is. Its DPO trainer
    learns text alone: training a generator on these clips is `dpo.train`'s work, and this view is for reward models,
    for trainers of one's own and for a look in the dataset viewer.
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
