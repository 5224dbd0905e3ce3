"""The clips, sounds and prompts named on the command line of `rewards.score`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from core.tables import PUBLISHED_HEADERS, TABLE_FILES, read_table
from rewards.base import Prompt
from rewards.decode import ClipFile

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")

_COLUMNS = ("candidate_id", "prompt_id", "prompt", "audio_prompt", "video_path")
_NAMED = 5  # clips named in a message


def clip_files(
    paths: Sequence[Path], sounds: Sequence[Path] | None = None, prompts: Sequence[str] | None = None
) -> list[ClipFile]:
    """Return the clips to score, each under its path, or under its candidate_id where the prompts table has one.

    Args:
        paths: media files, and folders, which stand for the video files in them.
        sounds: one file per clip. Without them, the wav of the same name beside a clip is its sound (`write_clip`
            leaves it there, lossless), else the clip's own track.
        prompts: one text for all clips, one per clip, or one name of a CSV, JSONL or Parquet table. In it a clip is
            found by `video_path`, else by `prompt_id`, which is then its file name without suffix.

    Raises:
        ValueError: a folder holds no clip, the numbers do not fit, or the table has no row for a clip.
    """
    clips = [clip for path in paths for clip in _expand(path)]
    if sounds is not None and len(sounds) != len(clips):
        raise ValueError(
            f"--audio names {len(sounds)} files for {len(clips)} clips. Give one per clip, in their order."
        )
    listed = sounds if sounds is not None else [_sound_beside(clip) for clip in clips]
    keys, asked = _prompts(clips, list(prompts or []))
    return [
        ClipFile(key, clip, sound, prompt)
        for key, clip, sound, prompt in zip(_unique(keys), clips, listed, asked, strict=True)
    ]


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
    if not found:
        raise ValueError(f"The folder {path} holds no clip, which is a file ending in {', '.join(VIDEO_SUFFIXES)}.")
    return found


def _sound_beside(clip: Path) -> Path | None:
    beside = clip.with_suffix(".wav")
    return beside if beside != clip and beside.is_file() else None


def _prompts(clips: Sequence[Path], given: list[str]) -> tuple[list[str], list[Prompt]]:
    """Key and prompt of each clip."""
    if len(given) == 1 and Path(given[0]).suffix.lower() in TABLE_SUFFIXES:
        return _from_table(clips, Path(given[0]))
    if len(given) not in (0, 1, len(clips)):
        raise ValueError(
            f"--prompts gives {len(given)} texts for {len(clips)} clips. Give one for all, one per clip in their "
            f"order, or the name of a {', '.join(TABLE_SUFFIXES)} table."
        )
    texts = (given or [""]) * (1 if len(given) == len(clips) else len(clips))
    numbers = {text: str(number) for number, text in enumerate(dict.fromkeys(texts))}
    return [str(clip) for clip in clips], [Prompt(numbers[text], text) for text in texts]


def _from_table(clips: Sequence[Path], path: Path) -> tuple[list[str], list[Prompt]]:
    table = _read_table(path)
    rows = _rows_of(clips, table, path)
    missing = [str(clip) for clip, row in zip(clips, rows, strict=True) if row is None]
    if missing:
        raise ValueError(
            f"{path} has no prompt for {len(missing)} of {len(clips)} clips: {', '.join(missing[:_NAMED])}"
            f"{', ...' if len(missing) > _NAMED else ''}. A clip is found by the column video_path, or by prompt_id, "
            "which is then its file name without suffix."
        )
    found = [row for row in rows if row is not None]
    keys = [row.get("candidate_id") or str(clip) for clip, row in zip(clips, found, strict=True)]
    return keys, [
        Prompt(row.get("prompt_id") or row["prompt"], row["prompt"], row.get("audio_prompt") or None) for row in found
    ]


def _read_table(path: Path) -> list[dict[str, str]]:
    """The rows under our headers, with the columns that are read here: cells as text, empty ones as ""."""
    table = read_table(
        path,
        {*_COLUMNS, *PUBLISHED_HEADERS},
        "prompts table",
        f"give --prompts texts, or a {TABLE_FILES}",
        lenient=True,
    )
    renamed = {old: new for old, new in PUBLISHED_HEADERS.items() if new not in table.column_names}
    names = [renamed.get(name, name) for name in table.column_names]
    if "prompt" not in names:
        raise ValueError(f"{path} has no column 'prompt' (it has: {', '.join(table.column_names)}). Add or rename it.")
    used = [names.index(name) for name in _COLUMNS if name in names]  # by number: a header may come twice
    rows = table.rename_columns(names).select(used).to_pylist()
    return [{name: "" if cell is None else str(cell) for name, cell in row.items()} for row in rows]


def _rows_of(clips: Sequence[Path], rows: Sequence[dict[str, str]], path: Path) -> list[dict[str, str] | None]:
    """The row of each clip: by its path, else by its file name, else by its name without suffix as prompt_id."""
    by_path, by_name, by_prompt = (defaultdict[str, list[dict[str, str]]](list) for _ in range(3))
    for row in rows:
        if name := row.get("video_path"):
            by_path[os.path.realpath(path.parent / name)].append(row)
            by_name[os.path.basename(name)].append(row)
        if prompt_id := row.get("prompt_id"):
            by_prompt[prompt_id].append(row)
    return [
        _only(by_path.get(os.path.realpath(clip)) or by_name.get(clip.name) or by_prompt.get(clip.stem), clip, path)
        for clip in clips
    ]


def _only(rows: list[dict[str, str]] | None, clip: Path, path: Path) -> dict[str, str] | None:
    if rows is not None and len(rows) > 1:
        raise ValueError(f"{path} has {len(rows)} rows for {clip}, and one is wanted. Remove the others.")
    return rows[0] if rows else None


def _unique(keys: Sequence[str]) -> list[str]:
    """The keys; one that comes again gets a number."""
    seen: dict[str, int] = {}
    unique = []
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        unique.append(key if seen[key] == 1 else f"{key} ({seen[key]})")
    return unique
