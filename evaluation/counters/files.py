"""The media files of a run's samples, found in the tables of `pipeline.sample` and `evaluation.run`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from core.storage import is_local, resolve_in

_COLUMNS = ("candidate_id", "prompt_id", "video_path", "audio_path", "latents_path", "is_ground_truth")


@dataclass(frozen=True)
class SampleFiles:
    """The files of one generated sample that are there."""

    candidate_id: str
    prompt_id: str
    video: Path
    audio: Path | None  # None: the sound is that of the video file
    latents: Path | None
    identity: str  # sizes and times of change: equal while no file changes


def sample_files(folder: Path) -> tuple[list[SampleFiles], int]:
    """Return the files of the generated samples whose video is there, and the number of samples whose video is not.

    Args:
        folder: output_dir of pipeline.run or pipeline.sample, or the output of evaluation.run.
    """
    table_path, base = folder / "samples.parquet", Path()  # evaluation.run writes paths as they were given to it
    if not table_path.is_file():
        table_path, base = folder / "candidates" / "candidates.parquet", folder / "candidates"
    schema = pq.read_schema(table_path)
    rows = pq.read_table(table_path, columns=[name for name in _COLUMNS if name in schema.names]).to_pylist()
    generated = [row for row in rows if not row.get("is_ground_truth")]
    found = [_files(row, base) for row in generated]
    present = [one for one in found if one is not None]
    return present, len(generated) - len(present)


def _files(row: dict[str, str | None], base: Path) -> SampleFiles | None:
    paths = [_local(row.get(f"{kind}_path"), base) for kind in ("video", "audio", "latents")]
    stated = [None if path is None else _stat(path) for path in paths]
    if stated[0] is None:
        return None
    video, audio, latents = (path if stat else None for path, stat in zip(paths, stated, strict=True))
    assert video is not None
    identity = " ".join("-" if stat is None else f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stated)
    return SampleFiles(str(row["candidate_id"]), str(row["prompt_id"]), video, audio, latents, identity)


def _local(name: str | None, base: Path) -> Path | None:
    path = None if name is None else resolve_in(base, name)
    return path if path is not None and is_local(path) else None


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
