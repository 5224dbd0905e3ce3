"""Decode the clips that rewards score: each file once, and of it only what the rewards look at or listen to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from media import AVClip, MediaError, read_clip, read_sound
from rewards.base import Prompt


@dataclass(frozen=True)
class ClipFile:
    """A clip to score. The sound is read from `audio_path` (lossless) where it is given, else from the video file."""

    candidate_id: str
    video_path: str | Path
    audio_path: str | Path | None
    prompt: Prompt


def decode(file: ClipFile, needs: frozenset[str]) -> AVClip | str:
    """The clip, or why it cannot be read.

    Without "video" in `needs` no picture is decoded: one black pixel lasts as long as the clip (`media.read_sound`).
    Without "audio" the clip has no sound.
    """
    try:
        if "video" in needs:
            return read_clip(file.video_path, audio_path=file.audio_path, sound="audio" in needs)
        return read_sound(file.video_path, audio_path=file.audio_path)
    except MediaError as error:
        return str(error)
    # Boundary to files that are not ours: a tag that is no text, or more frames than memory holds, costs this clip.
    except Exception as error:  # noqa: BLE001
        return f"{file.video_path}: cannot be decoded: {type(error).__name__}: {error}"


def decode_ahead(
    batches: Iterable[Sequence[ClipFile]], needs: frozenset[str], num_decoders: int
) -> Iterator[list[tuple[ClipFile, AVClip | str]]]:
    """Each batch with its decoded clips, in order; the next one is decoded on threads while the caller works on this.

    Two batches are in memory at most. PyAV decodes without holding Python's lock.
    """
    pool = ThreadPoolExecutor(num_decoders, thread_name_prefix="decode")
    try:
        ready: list[tuple[ClipFile, Future[AVClip | str]]] | None = None
        for batch in batches:
            submitted = [(file, pool.submit(decode, file, needs)) for file in batch]
            if ready is not None:
                yield [(file, future.result()) for file, future in ready]
            ready = submitted
        if ready is not None:
            yield [(file, future.result()) for file, future in ready]
    finally:  # also when the caller stops half-way
        pool.shutdown(cancel_futures=True)
