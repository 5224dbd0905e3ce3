"""Decode clips for judges: each file once, and only the frames and the sound that the judges use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from media import AVClip, MediaError, read_clip, read_sound
from media.read import FrameChoice
from rewards.base import Prompt


@dataclass(frozen=True)
class ClipFile:
    """A clip to score. The sound is read from `audio_path` (lossless) where it is given, else from the video file."""

    candidate_id: str
    video_path: str | Path
    audio_path: str | Path | None
    prompt: Prompt


def decode(file: ClipFile, needs: frozenset[str], frames: FrameChoice | None = None) -> AVClip | str:
    """Return the clip, or why it cannot be read. Frames that `frames` does not choose are black (`media.read_clip`).

    Without "video" in `needs` no picture is decoded: one black pixel lasts as long as the clip (`media.read_sound`).
    Without "audio" the clip has no sound.
    """
    try:
        if "video" in needs:
            return read_clip(file.video_path, audio_path=file.audio_path, sound="audio" in needs, frames=frames)
        return read_sound(file.video_path, audio_path=file.audio_path)
    except MediaError as error:
        return str(error)
    # Boundary to files from outside: any exception, and a clip that memory does not hold, costs this clip only.
    except Exception as error:  # noqa: BLE001
        return f"{file.video_path}: cannot be decoded: {type(error).__name__}: {error}"


def decode_ahead(
    batches: Iterable[Sequence[ClipFile]],
    needs: frozenset[str],
    num_decoders: int,
    frames: FrameChoice | None = None,
) -> Iterator[list[tuple[ClipFile, AVClip | str]]]:
    """Yield each batch with its decoded clips, in order; the next batch is decoded on threads meanwhile.

    Two batches are in memory at most. PyAV decodes without holding Python's lock.
    """
    pool = ThreadPoolExecutor(num_decoders, thread_name_prefix="decode")
    try:
        ready: list[tuple[ClipFile, Future[AVClip | str]]] | None = None
        for batch in batches:
            submitted = [(file, pool.submit(decode, file, needs, frames)) for file in batch]
            if ready is not None:
                yield [(file, future.result()) for file, future in ready]
            ready = submitted
        if ready is not None:
            yield [(file, future.result()) for file, future in ready]
    finally:  # also when the caller stops half-way
        pool.shutdown(cancel_futures=True)
