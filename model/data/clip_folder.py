"""Reader of a folder of media files with captions beside them, as rows of a clip table. Imports no torch.

`<name>.txt` is the caption of `<name>.mp4`, and a sound file `<name>.wav` beside it is its sound.
"""

from __future__ import annotations

from pathlib import Path

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".aac", ".opus")


def read_folder(folder: Path) -> list[dict[str, str]]:
    """Return a row per media file, sorted by name; a row without a caption has the column `problem`.

    Hidden files are left out. The name of a clip is its path in the folder.
    """
    files = [path for path in sorted(folder.rglob("*")) if not _is_hidden(path.relative_to(folder))]
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    with_picture = {path.with_suffix("") for path in videos}
    sounds = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    alone = [path for path in sounds if path.with_suffix("") not in with_picture]
    beside = {path.with_suffix(""): path for path in sounds}
    return [_row(path, beside.get(path.with_suffix("")), folder) for path in sorted(videos + alone)]


def _row(path: Path, sound: Path | None, folder: Path) -> dict[str, str]:
    name = path.relative_to(folder).as_posix()
    row = {"clip_id": name}
    if path != sound:
        row["video_path"] = name
    if sound is not None:
        row["audio_path"] = sound.relative_to(folder).as_posix()
    caption = path.with_suffix(".txt")
    if not caption.is_file():
        return row | {"problem": f"has no caption: write it into {caption.name} beside it"}
    text = caption.read_text(encoding="utf-8", errors="replace").strip()
    return row | ({"prompt": text} if text else {"problem": f"has no caption: {caption.name} beside it is empty"})


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
