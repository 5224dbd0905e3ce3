"""Inspection of a media file: streams, timing and completeness, read from its packets without decoding them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from core.storage import local_copy
from media.audio import read_wav
from media.clip import MediaError, MediaInfo
from media.write import SIZE_COMMENT

NOT_CLIPS = ("tty", "image2", "_pipe")  # formats that FFmpeg reports for a text file or a single picture
MAX_RATE_ERROR = 0.05  # a declared frame rate that differs more than this from the timestamps is ignored
MAX_MISSING_S = 0.5  # a Matroska file that ends this much before its declared length is truncated


@dataclass(frozen=True)
class VideoTiming:
    """Presentation times of a video stream, in seconds on the container's timeline, and its frame rate."""

    start_s: float
    end_s: float
    num_frames: int
    fps: float


@dataclass(frozen=True)
class Scan:
    """Indices of the streams to use (None for a missing stream) and their timing."""

    video_index: int | None
    audio_index: int | None
    video: VideoTiming | None
    audio_start_s: float
    audio_end_s: float


def probe(path: str | Path) -> MediaInfo:
    """Return duration, frame rate, size and sound format of a media file.

    Raises MediaError for a file that is not a complete media file.
    """
    with local_clip(path) as (file, _):
        scan = scan_file(file)
        with open_media(file) as container:
            height = width = rate = channels = 0
            if scan.video_index is not None:
                height, width = _displayed_size(file, container, scan.video_index)
            if scan.audio_index is not None:
                context = container.streams[scan.audio_index].codec_context
                rate, channels = context.sample_rate, context.channels
    audio_duration = scan.audio_end_s - scan.audio_start_s
    video = scan.video
    return MediaInfo(
        path=str(path),
        duration_s=video.num_frames / video.fps if video else audio_duration,
        num_frames=video.num_frames if video else 0,
        fps=video.fps if video else 0.0,
        height=height,
        width=width,
        sample_rate=rate,
        num_channels=channels,
        audio_duration_s=audio_duration,
    )


@contextmanager
def local_clip(path: str | Path, audio_path: str | Path | None = None) -> Iterator[tuple[Path, Path | None]]:
    """Provide local files of a clip and its sound: temporary copies if they are in an object store.

    A MediaError raised inside the block is raised again under the name that the caller gave; an error about a clip in
    memory is raised again under the name `path`.
    """
    with ExitStack() as stack:
        files = [None if name is None else _enter_copy(stack, name) for name in (path, audio_path)]
        names = dict(zip(map(str, files), (path, audio_path), strict=True))
        picture, sound = files
        assert picture is not None
        try:
            yield picture, sound
        except MediaError as error:
            name = names.get(str(error.path)) or path
            raise error if str(name) == str(error.path) else MediaError(name, error.reason) from error


@contextmanager
def open_media(path: str | Path) -> Iterator[Any]:
    """Open `path` for reading; every FFmpeg error inside the block becomes a MediaError that names the file."""
    try:
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise MediaError(path, "is empty")
        # Absolute path: FFmpeg would read a name such as "a:b.mp4" as a protocol.
        # "replace": a tag that is not UTF-8 would otherwise make an intact file unreadable.
        with av.open(os.path.abspath(path), metadata_errors="replace") as container:
            if container.format.name.endswith(NOT_CLIPS):
                raise MediaError(path, f"is not a clip: its format is {container.format.name!r}, a text or a picture")
            yield container
    except av.error.InvalidDataError as error:
        raise MediaError(path, "is not a media file, or is damaged or truncated") from error
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(path, f"cannot be read: {error.strerror or error}") from error


def scan_file(path: str | Path) -> Scan:
    """Read all packets of a file and return its streams and timing.

    Raises MediaError for a file that has neither video nor sound, or is truncated.
    """
    with open_media(path) as container:
        pictures = [stream for stream in container.streams.video if stream.disposition != Disposition.attached_pic]
        used = [*pictures[:1], *container.streams.audio[:1]]
        if not used:
            raise MediaError(path, "has neither a video nor an audio stream, or is truncated before them")
        spans = _packet_spans(container, used)
        _check_complete(path, container, used, spans)
        filled = {stream.type: stream for stream in used if spans[stream.index]}
        if not filled:
            raise MediaError(path, "is damaged: its streams hold no packets")
        video, audio = filled.get("video"), filled.get("audio")
        sound = spans[audio.index] if audio else []
        return Scan(
            video_index=video.index if video else None,
            audio_index=audio.index if audio else None,
            video=_video_timing(path, video, sorted(spans[video.index])) if video else None,
            audio_start_s=min((start for start, _ in sound), default=0.0),
            audio_end_s=max((end for _, end in sound), default=0.0),
        )


def original_size(container: Any, height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) that a clip had before `write_clip` padded odd sides; height and width are decoded."""
    comment = container.metadata.get("comment", "")
    for odd_height in (height, height - 1):
        for odd_width in (width, width - 1):
            if comment == SIZE_COMMENT.format(height=odd_height, width=odd_width):
                return odd_height, odd_width
    return height, width


def _enter_copy(stack: ExitStack, name: str | Path) -> Path:
    try:
        return stack.enter_context(local_copy(name))
    except FileNotFoundError as error:
        raise MediaError(name, f"cannot be read: {error.strerror or error}") from error


def _packet_spans(container: Any, used: list[Any]) -> dict[int, list[tuple[float, float]]]:
    """Return, per stream index, the start and end in seconds of each packet that is presented (not discarded)."""
    spans: dict[int, list[tuple[float, float]]] = {stream.index: [] for stream in used}
    for packet in container.demux(used):
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and packet.size and not packet.is_discard:
            start = float(time * packet.time_base)
            spans[packet.stream_index].append((start, start + float((packet.duration or 0) * packet.time_base)))
    return spans


def _displayed_size(path: str | Path, container: Any, stream_index: int) -> tuple[int, int]:
    frame = next(container.decode(container.streams[stream_index]), None)
    if frame is None:
        raise MediaError(path, "is damaged: no frame can be decoded")
    height, width = original_size(container, frame.height, frame.width)
    return (width, height) if frame.rotation % 180 else (height, width)


def _video_timing(path: str | Path, stream: Any, spans: list[tuple[float, float]]) -> VideoTiming:
    """Return the timing from the sorted (start, end) of the packets.

    The declared frame rate is exact, so it is preferred where it agrees with the packets.
    """
    first, last = spans[0][0], spans[-1][0]
    declared = float(stream.average_rate or stream.guessed_rate or 0)
    measured = (len(spans) - 1) / (last - first) if last > first else declared
    if not measured:
        raise MediaError(path, "has no frame rate: neither its header nor its timestamps give one")
    fps = declared if abs(declared - measured) <= MAX_RATE_ERROR * measured else measured
    fps = float(Fraction(fps).limit_denominator(1001)) or fps
    end = max(spans[-1][1], last + 0.5 / fps)  # a last packet without a duration still presents one frame
    return VideoTiming(first, end, len(spans), fps)


def _check_complete(path: str | Path, container: Any, used: list[Any], spans: dict[int, list[Any]]) -> None:
    if "mp4" in container.format.name:
        size = os.path.getsize(path)
        needed = max((entry.pos + entry.size for stream in used for entry in stream.index_entries), default=0)
        if needed > size:
            raise MediaError(path, f"is truncated: its index refers to {needed} bytes, but the file has {size}")
    elif container.format.name == "wav":
        read_wav(path)  # checks the sizes in the header; FFmpeg does not
    elif "matroska" in container.format.name and container.duration:
        declared = container.duration / av.time_base
        end = max((span[1] for stream_spans in spans.values() for span in stream_spans), default=0.0)
        if end < declared - MAX_MISSING_S:
            raise MediaError(path, f"is truncated: its header declares {declared:.2f} s, but it ends at {end:.2f} s")
