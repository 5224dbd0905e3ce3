"""Run folders with clips of Bounce on disk, as pipeline.sample and pipeline.score leave them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from core.schema import CANDIDATES, SCORES, table_from_rows, write_table
from media import AVClip, write_clip
from synthetic import render_clip, scene_from_seed
from synthetic.captions import caption


def sampled(prompt: int, index: int) -> AVClip:
    """Return the clip that the unchanged model makes: candidates of a prompt are different scenes."""
    return render_clip(scene_from_seed(100 * prompt + index))


def louder(clip: AVClip) -> AVClip:
    return replace(clip, audio=np.clip(clip.audio * np.float32(1.25), -0.98, 0.98))


def darker(clip: AVClip) -> AVClip:
    return replace(clip, video=np.rint(clip.video * 0.7).astype(np.uint8))


def write_run(
    folder: Path,
    *,
    num_prompts: int = 6,
    per_prompt: int = 2,
    clip_of: Callable[[int, int], AVClip] = sampled,
    scores: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write clips and both tables; scores are random where none are given, and equal between runs."""
    rows = []
    for prompt in range(num_prompts):
        for index in range(per_prompt):
            stem = f"media/{prompt}_{index}"
            clip = clip_of(prompt, index)
            write_clip(clip, folder / "candidates" / f"{stem}.mp4")
            rows.append(
                {
                    "candidate_id": f"p{prompt:02d}/{index}",
                    "prompt_id": f"p{prompt:02d}",
                    "prompt": caption(scene_from_seed(100 * prompt)),
                    "index": index,
                    "is_ground_truth": False,
                    "seed": 100 * prompt + index,
                    "video_path": f"{stem}.mp4",
                    "audio_path": f"{stem}.wav" if clip.has_audio else None,
                    "duration_s": clip.duration_s,
                }
            )
    write_table(table_from_rows(rows, CANDIDATES), CANDIDATES, folder / "candidates" / "candidates.parquet")
    columns = scores or {"visual_quality": np.random.default_rng(0).normal(size=len(rows))}
    frame = pd.DataFrame({"candidate_id": [row["candidate_id"] for row in rows], **columns})
    (folder / "scores").mkdir(exist_ok=True)
    write_table(pa.Table.from_pandas(frame, preserve_index=False), SCORES, folder / "scores" / "scores.parquet")
    return folder
