"""Reader of the clips to train on: a table (CSV, JSONL, Parquet) or a folder of media files. Imports no torch.

Columns are the published ones (`path`, `text`, `audio_path`, `audio_text`, `num_frames`, `height`, `width`, `fps`) or
those of this project's prompts tables (`prompt_id`, `prompt`, `video_path`, `audio_path`); others are ignored.
Paths are relative to the table's folder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from core.tables import TABLE_FILES, read_table
from media.clip import MediaError
from media.probe import probe
from model.data.clip_folder import read_folder
from model.data.video_file import VideoFile

_COLUMNS = {  # field -> columns that may hold it, in the order of precedence
    "clip_id": ("clip_id", "prompt_id", "id"),
    "prompt": ("prompt", "text", "caption"),
    "audio_prompt": ("audio_prompt", "audio_text"),
    "video_path": ("video_path", "path"),
    "audio_path": ("audio_path",),
    "num_frames": ("num_frames",),
    "height": ("height",),
    "width": ("width",),
    "fps": ("fps",),
}
_TEXTS = ("clip_id", "prompt", "audio_prompt", "video_path", "audio_path")
_NUMBERS = ("num_frames", "height", "width", "fps")


@dataclass(frozen=True)
class Clip:
    """A clip of the table. Properties of the picture that the table lacks are None."""

    row: int  # position in the table, from 0: the row number of the published bucket seed
    clip_id: str
    prompt: str
    audio_prompt: str | None = None  # caption of the sound, where the table has one
    video_path: Path | None = None
    audio_path: Path | None = None  # file of the sound, where it is separate
    num_frames: int | None = None  # of the file
    height: int | None = None  # pixels, as displayed
    width: int | None = None
    fps: float | None = None  # of the file
    problem: str | None = None  # reason why the row describes no usable clip

    @property
    def path(self) -> Path | None:
        """The file to name in messages about the clip."""
        return self.video_path or self.audio_path


class Geometry(NamedTuple):
    """Length and size of a clip, which decide its bucket."""

    num_frames: int  # of the whole file, at the model's frame rate
    height: int
    width: int


def read_clips(source: str | Path) -> list[Clip]:
    """Read the clips of a table, or of a folder whose media files have captions beside them (`model.data.clip_folder`).

    A row that describes no clip (no caption, no file, an invalid size) is returned with its `problem`, so that a few
    bad rows do not stop the others. Media files are not opened.

    Raises:
        ValueError: no such table, no column of captions or files, or two rows with one name.
    """
    source = Path(source)
    rows = read_folder(source) if source.is_dir() else _read_table(source)
    if not rows:
        raise ValueError(f"{source} holds no clips: give a table with at least one row, or a folder of media files.")
    clips = [_clip(number, row, table_folder(source)) for number, row in enumerate(rows)]
    _check_unique(clips, source)
    return clips


def table_folder(source: str | Path) -> Path:
    """Return the base folder of the relative paths in a table, or the folder of clips itself."""
    source = Path(source)
    return (source if source.is_dir() else source.parent).resolve()


def fingerprint(clips: Sequence[Clip], source: str | Path) -> str:
    """Return 16 hex digits of the rows' content, unchanged when the table and its files are moved together."""
    root = table_folder(source)
    digest = hashlib.blake2b(digest_size=8)
    for clip in clips:
        paths = [None if path is None else os.path.relpath(path, root) for path in (clip.video_path, clip.audio_path)]
        numbers = [clip.num_frames, clip.height, clip.width, clip.fps]
        digest.update(json.dumps([clip.row, clip.clip_id, clip.prompt, clip.audio_prompt, *paths, *numbers]).encode())
    return digest.hexdigest()


def picture_geometry(clip: Clip, fps: float) -> Geometry:
    """Return the frames at `fps` and the size of the picture, from the table if it has them, else from the file.

    The table counts `num_frames` at its `fps`, or without one at the model's, as published.

    Raises:
        MediaError: the file cannot be used, or has no picture.
    """
    if clip.video_path is None:
        raise MediaError(clip.path, "has sound only, but training needs a picture: give `video_path`")
    if clip.num_frames and clip.height and clip.width:
        return Geometry(round(clip.num_frames / (clip.fps or fps) * fps), clip.height, clip.width)
    num_frames = VideoFile(clip.video_path, fps).num_frames
    info = probe(clip.video_path)
    return Geometry(num_frames, clip.height or info.height, clip.width or info.width)


def sound_frames(clip: Clip, fps: float) -> int:
    """Return the length of the file's sound in frames of 1 / fps seconds.

    A table's `num_frames` is the length of the picture, which may be longer.

    Raises:
        MediaError: the file cannot be used, or has no sound.
    """
    path = clip.audio_path or clip.video_path
    assert path is not None
    info = probe(path)
    if not info.has_audio:
        raise MediaError(path, "has no sound")
    return int(info.audio_duration_s * fps + 1e-6)


def _clip(number: int, row: Mapping[str, Any], root: Path) -> Clip:
    texts = {name: str(row[name]) if row.get(name) not in (None, "") else None for name in _TEXTS}
    numbers = {name: _number(row.get(name)) for name in _NUMBERS}
    video_path, audio_path = (root / path if (path := texts[name]) else None for name in ("video_path", "audio_path"))
    num_frames, height, width = (None if (value := numbers[name]) is None else round(value) for name in _NUMBERS[:3])
    return Clip(
        row=number,
        clip_id=texts["clip_id"] or texts["video_path"] or texts["audio_path"] or f"row {number}",
        prompt=texts["prompt"] or texts["audio_prompt"] or "",
        audio_prompt=texts["audio_prompt"],
        video_path=video_path,
        # Tables for the release may name the video here: the sound is then its own.
        audio_path=None if audio_path == video_path else audio_path,
        num_frames=num_frames,
        height=height,
        width=width,
        fps=numbers["fps"],
        problem=row.get("problem") or _problem(row, texts, numbers),
    )


def _problem(
    row: Mapping[str, Any], texts: Mapping[str, str | None], numbers: Mapping[str, float | None]
) -> str | None:
    if not (texts["prompt"] or texts["audio_prompt"]):
        return "has no caption: fill in `prompt` (or `text`)"
    if not (texts["video_path"] or texts["audio_path"]):
        return "has no media file: fill in `video_path` (or `path`), or `audio_path`"
    for name, value in numbers.items():
        if value is not None and not value > 0:
            return f"{name} is {row[name]!r}: give a positive number, or leave it empty to be probed"
    return None


def _number(value: Any) -> float | None:
    """Return the cell's number, None for an empty cell, or -1 for a cell without a finite number."""
    if value is None or value == "" or value != value:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return -1.0
    return number if math.isfinite(number) else -1.0


def _check_unique(clips: Sequence[Clip], source: Path) -> None:
    first: dict[str, int] = {}
    for clip in clips:
        if clip.clip_id in first:
            raise ValueError(
                f"{source}, row {clip.row}: the clip {clip.clip_id!r} stands in row {first[clip.clip_id]} already, but "
                "names must be unique: remove one row, or add a column `clip_id` with names of your own."
            )
        first[clip.clip_id] = clip.row


def _read_table(path: Path) -> list[dict[str, Any]]:
    columns = {name for names in _COLUMNS.values() for name in names}
    advice = f"give a {TABLE_FILES}, or a folder of media files"
    table = read_table(path, columns, "table of clips", advice, lenient=True)
    found = {field: name for field, names in _COLUMNS.items() if (name := _first(names, table.column_names))}
    for field, wanted in (("prompt", {"prompt", "audio_prompt"}), ("video_path", {"video_path", "audio_path"})):
        if not wanted & found.keys():
            raise ValueError(
                f"{path} has no column {' or '.join(map(repr, _COLUMNS[field]))} (it has: "
                f"{', '.join(table.column_names)}), so it is no table of clips: add one."
            )
    return pa.table({field: table[name] for field, name in found.items()}).to_pylist()


def _first(names: Sequence[str], there: Sequence[str]) -> str | None:
    return next((name for name in names if name in there), None)
