"""A small finished run for the report's tests: real clips, a real dataset, and hostile names and prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset

from core.schema import CANDIDATES, SCORES, table_from_rows, write_table
from media import AVClip, write_clip
from rewards.metrics import METRIC_COLUMNS, MODALITY_METRICS

SIDES = ("chosen", "rejected")
MODALITIES = tuple(MODALITY_METRICS)

HOSTILE_TEXTS = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=\"alert('injected')\"><b id=injected>bold</b>",
    "<!-- <script> --!> ]]> &lt;b&gt; &amp; \\u003c {{ 7 * 7 }} {% raw %}",
    "quotes \" ' ` and a backslash \\ and a line\nbreak, a tab\t, U+2028\u2028 and U+2029\u2029 end",
    "../../../etc/passwd",
    "javascript:alert(1)",
    "a ball \U0001f3c0 rings \U0001f514",
    "\u043c\u044f\u0447 \u0437\u0432\u0435\u043d\u0438\u0442, \u9418\u304c\u9cf4\u308b",
    "\u05db\u05d3\u05d5\u05e8 \u05d0\u05d3\u05d5\u05dd",
    "\u0643\u0631\u0629 \u062d\u0645\u0631\u0627\u0621 \u202eoverride",
    "x" * 300,
)
ODD_NAMES = (
    "a #1 50% off?",
    "q?x=1&y=2",
    "100%25 done",
    'quo"te',
    "plus + and; semi",
    "\u0445\u0432\u043e\u0441\u0442",
    "-",
)


def tiny_clip(number: int) -> AVClip:
    """Make a clip of 1.5 seconds with a tone and a square whose place and brightness identify the clip."""
    video = np.full((24, 64, 64, 3), 40 + 20 * (number % 4), dtype=np.uint8)
    for frame, picture in enumerate(video):
        top = 2 * frame
        picture[top : top + 14, 8 + 4 * number : 24 + 4 * number] = (230, 90 + 30 * number, 60)
    seconds = np.arange(24000, dtype=np.float32) / 16000
    tone = 0.3 * np.sin(2 * np.pi * 220 * (number + 1) * seconds, dtype=np.float32)
    return AVClip(video=video, fps=16.0, audio=tone[None], sample_rate=16000)


def pairs_table(num_pairs: int, *, first_texts: tuple[str, ...] = (), seed: int = 0) -> pd.DataFrame:
    """Return rows as `pipeline.rank` writes them, unordered; clips are named but not written."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num_pairs):
        text = first_texts[number] if number < len(first_texts) else None
        prompt_id = text if text is not None else f"bounce-{(number * 7919) % 100000:06d}"
        color = ("red", "green", "blue")[number % 3]
        prompt = (
            text if text is not None else f"a small {color} ball bounces twice, ringing like a bell, number {number}"
        )
        rows.append({"prompt_id": prompt_id, "prompt": prompt, **_measured(rng, number, prompt_id)})
    return pd.DataFrame(rows).astype({f"{side}_seed": "Int64" for side in SIDES})


def _measured(rng: np.random.Generator, number: int, prompt_id: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    indices = ("gt", "0") if number % 3 == 0 else ("2", "gt") if number % 3 == 1 else ("1", "0")
    folder = f"{ODD_NAMES[number % len(ODD_NAMES)]}-{number % 4}"
    for side, index in zip(SIDES, indices, strict=True):
        row[f"{side}_candidate_id"] = f"{prompt_id}/{index}"
        row[f"{side}_video_path"] = f"../candidates/media/{folder}/{index}.mp4"
        row[f"{side}_audio_path"] = f"../candidates/media/{folder}/{index}.wav"
        row[f"{side}_latents_path"] = None
        row[f"{side}_is_ground_truth"] = index == "gt"
        row[f"{side}_seed"] = None if index == "gt" else int(rng.integers(2**62, 2**63 - 1))
        better = 0.12 if side == "chosen" else 0.0
        for metric in METRIC_COLUMNS:
            value = rng.uniform(0.0, 0.9) + better
            row[f"{side}_{metric}"] = 0.9 - 0.8 * value if metric == "desync" else value
    for modality in MODALITIES:
        row[f"margin_{modality}"] = rng.gamma(2.0, 0.5)
        row[f"rejected_{modality}_score"] = rng.normal(-0.5, 0.7)
        row[f"chosen_{modality}_score"] = row[f"rejected_{modality}_score"] + row[f"margin_{modality}"]
    row["margin"] = sum(row[f"margin_{modality}"] for modality in MODALITIES)
    return row | {"num_frames": 24, "height": 64, "width": 64, "fps": 16.0, "sample_rate": 16000, "duration_s": 1.5}


def write_run(
    output_dir: Path, pairs: pd.DataFrame, *, ranking: dict[str, Any] | None = None, clips: bool = True
) -> Path:
    """Write pairs/, ranking.json and (four different clips, copied to every name) candidates/media/."""
    pairs_dir = output_dir / "pairs"
    dataset = Dataset.from_pandas(pairs, preserve_index=False)
    dataset.save_to_disk(str(pairs_dir), num_shards=1)  # by default an empty one gets no shard, and cannot be read back
    if ranking is not None:
        (pairs_dir / "ranking.json").write_text(json.dumps(ranking), encoding="utf-8")
    if clips:
        _write_clips(output_dir, pairs)
    return output_dir


def write_scored_candidates(output_dir: Path, num_prompts: int = 30) -> None:
    """Candidates and scores tables as `pipeline.score` leaves them, of three candidates and a ground truth each."""
    rng = np.random.default_rng(0)
    candidates: list[dict[str, Any]] = []
    for prompt_id in (f"bounce-{number}" for number in range(num_prompts)):
        for index, name in enumerate(("gt", "0", "1", "2"), start=-1):
            row = {"candidate_id": f"{prompt_id}/{name}", "prompt_id": prompt_id, "prompt": "a ball", "index": index}
            geometry = {"num_frames": 24, "height": 64, "width": 64, "fps": 16.0, "sample_rate": 16000}
            paths = {"video_path": f"media/{prompt_id}/{name}.mp4", "audio_path": f"media/{prompt_id}/{name}.wav"}
            candidates.append(row | paths | geometry | {"is_ground_truth": index < 0, "duration_s": 1.5})
    table = table_from_rows(candidates, CANDIDATES)
    write_table(table, CANDIDATES, output_dir / "candidates" / "candidates.parquet")
    scores = {name: pa.array(rng.random(len(table))) for name in METRIC_COLUMNS}
    ids = {"candidate_id": table["candidate_id"]}
    write_table(pa.table(ids | scores), SCORES, output_dir / "scores" / "scores.parquet")


def _write_clips(output_dir: Path, pairs: pd.DataFrame) -> None:
    originals = [output_dir / f"original-{number}.mp4" for number in range(4)]
    for number, original in enumerate(originals):
        write_clip(tiny_clip(number), original)
    paths = sorted({path for side in SIDES for path in pairs[f"{side}_video_path"]})
    for number, path in enumerate(paths):
        target = output_dir / "pairs" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".mp4", ".wav"):
            shutil.copyfile(originals[number % 4].with_suffix(suffix), target.with_suffix(suffix))
