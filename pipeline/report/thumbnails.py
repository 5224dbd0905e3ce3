"""Thumbnails of the clips for the report's page. A thumbnail is made again only if its clip is newer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from core.atomic import atomic_path
from media import MediaError, read_clip

WEBP_QUALITY = 70


def make_thumbnails(clips: Iterable[str], output_dir: Path, folder: Path, size: int) -> set[str]:
    """Write `folder/<clip>.webp` for each clip: the first frame, its longer side at most `size` pixels.

    A clip that is missing or cannot be decoded gets no thumbnail.

    Args:
        clips: paths relative to `output_dir`.

    Returns:
        The clips that have a thumbnail.
    """
    wanted = sorted(set(clips))
    num_threads = min(16, os.cpu_count() or 1)  # decoding and encoding release the interpreter lock
    seconds = 0.2 if sys.stderr.isatty() else 10.0
    have = set()
    with ThreadPoolExecutor(num_threads) as pool:
        made = pool.map(lambda clip: _make(output_dir / clip, folder / f"{clip}.webp", size), wanted)
        bar = tqdm(made, total=len(wanted), desc="thumbnails", unit="clip", mininterval=seconds, delay=1)
        for clip, done in zip(wanted, bar, strict=True):
            if done:
                have.add(clip)
    return have


def _make(clip: Path, thumbnail: Path, size: int) -> bool:
    if not clip.is_file():
        return False
    if thumbnail.is_file() and thumbnail.stat().st_mtime >= clip.stat().st_mtime:
        return True
    try:
        frame = read_clip(clip, num_frames=1, sound=False).video[0]
    except MediaError:
        return False
    picture = Image.fromarray(frame)
    picture.thumbnail((size, size))
    with atomic_path(thumbnail) as temporary:
        picture.save(temporary, "WEBP", quality=WEBP_QUALITY)
    return True
