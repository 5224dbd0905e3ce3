"""A small benchmark of Bounce clips, and samples of it in both layouts: copies, some of which something was done to."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.lineage import METADATA_KEY
from core.schema import CANDIDATES, table_from_rows, with_metadata, write_table
from media import AVClip, read_clip, write_clip
from synthetic import render_clip, scene_from_seed
from synthetic.captions import caption
from synthetic.corrupt import hiss, pixel_noise, shift_sound

NUM_ROWS = 12
LEVELS = ("copy", "mild", "strong")  # a third of the rows each


def level(row: int) -> str:
    return LEVELS[row * len(LEVELS) // NUM_ROWS]


def write_benchmark(folder: Path) -> Path:
    """Captions, ground truth, the published columns of two aspects, and how much is done to a row's sample."""
    rows = []
    for row in range(NUM_ROWS):
        scene = scene_from_seed(row)
        write_clip(render_clip(scene), folder / "clips" / f"{row}.mp4")
        rows.append(
            {
                "id": f"bounce {row}",
                "text": caption(scene),
                "path": f"clips/{row}.mp4",
                "audio_path": f"clips/{row}.wav",
                "cat2_ind": "3" if row % 2 else "0,3",
                "cat4_ind": str(row % 3),
                "level": level(row),
            }
        )
    pd.DataFrame(rows).to_csv(folder / "bench.csv", index=False)
    return folder / "bench.csv"


def changed(clip: AVClip, much: str) -> AVClip:
    if much == "copy":
        return clip
    strength, rng = {"mild": 0.3, "strong": 1.0}[much], np.random.default_rng(0)
    noisy = hiss(pixel_noise(clip, strength, rng), strength, rng)
    return shift_sound(noisy, 0.5) if much == "strong" else noisy


def write_run(folder: Path, benchmark: Path, lineage: str) -> Path:
    """As pipeline.sample leaves it."""
    table = pd.read_csv(benchmark)
    rows: list[dict[str, Any]] = []
    for row in range(NUM_ROWS):
        clip = changed(read_clip(benchmark.parent / f"clips/{row}.mp4", audio_path=_sound(benchmark, row)), level(row))
        media = folder / "candidates" / "media"
        write_clip(clip, media / f"{row}.mp4")
        if level(row) == "copy":  # the very files: encoding a picture again changes it
            for suffix in ("mp4", "wav"):
                shutil.copy(benchmark.parent / f"clips/{row}.{suffix}", media / f"{row}.{suffix}")
        rows.append(candidate(table["id"][row], table["text"][row], f"media/{row}", clip, seed=2**62 + row))
    path = folder / "candidates" / "candidates.parquet"
    shuffled = [rows[place] for place in np.random.default_rng(1).permutation(NUM_ROWS)]
    write_table(with_metadata(table_from_rows(shuffled, CANDIDATES), {METADATA_KEY: lineage}), CANDIDATES, path)
    return folder


def candidate(prompt_id: str, prompt: str, stem: str, clip: AVClip, seed: int) -> dict[str, Any]:
    return {
        "candidate_id": f"{prompt_id}/0",
        "prompt_id": prompt_id,
        "prompt": prompt,
        "index": 0,
        "is_ground_truth": False,
        "seed": seed,
        "video_path": f"{stem}.mp4",
        "audio_path": f"{stem}.wav",
        "num_frames": clip.num_frames,
        "height": clip.height,
        "width": clip.width,
        "fps": clip.fps,
        "sample_rate": clip.sample_rate,
        "duration_s": clip.duration_s,
        "generation_s": 1.5 + seed % 2,
    }


def write_flawed(folder: Path, run: Path, benchmark: Path) -> Path:
    """Numbered files: those of a run, but 4 twice, 5 missing, 6 unreadable, 7 mute, and one of no row."""
    folder.mkdir()
    media = run / "candidates" / "media"
    for row in range(NUM_ROWS):
        for suffix in ("mp4", "wav"):
            (folder / f"sample_{row:04d}.{suffix}").write_bytes((media / f"{row}.{suffix}").read_bytes())
    (folder / "sample_4.mp4").write_bytes((media / "4.mp4").read_bytes())
    (folder / "sample_0005.mp4").unlink()
    (folder / "sample_0006.mp4").write_bytes(b"no film at all")
    (folder / "sample_0007.wav").unlink()
    clip = read_clip(media / "7.mp4")
    write_clip(replace(clip, audio=np.zeros((0, 0), np.float32), sample_rate=0), folder / "sample_0007.mp4")
    (folder / "sample_0099.mp4").write_bytes(b"of another benchmark")
    return folder


def _sound(benchmark: Path, row: int) -> Path:
    return benchmark.parent / f"clips/{row}.wav"
