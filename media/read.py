"""Reading of media files as AVClip: frames by their timestamps, upright, with sound that starts at the first frame."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from media.audio import fit_length, pcm_to_float, read_wav
from media.clip import AVClip, MediaError, empty_audio
from media.convert import TIMESTAMP_TOLERANCE_S, at_rate, check_positive, convert_audio, fit_num_frames, resize_frame
from media.probe import Scan, VideoTiming, local_clip, open_media, original_size, probe, scan_file
from media.write import ACCURATE

__all__ = ["probe", "read_clip", "read_sound", "read_sound_file", "read_video_sound", "to_rgb"]

# (number of frames, frames per second) -> indices of the frames to decode to RGB; None for all
FrameChoice = Callable[[int, float], Collection[int] | None]

MAX_JITTER_S = 0.02  # some containers round audio timestamps; only a larger step is a gap or an overlap


def read_clip(
    path: str | Path,
    *,
    audio_path: str | Path | None = None,
    fps: float | None = None,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    sample_rate: int | None = None,
    num_channels: int | None = None,
    sound: bool = True,
    frames: FrameChoice | None = None,
) -> AVClip:
    """Decode a clip; the sound comes from the file itself or from `audio_path`. None keeps the file's own properties.

    A variable frame rate becomes the file's average rate, or `fps`; conversions follow `convert_clip`. Time 0 is the
    first frame: earlier sound (including an encoder's priming samples) is cut, and later sound is preceded by zeros.
    `audio_path` (usually a wav file) starts at time 0. Sample aspect ratios are not applied. If `sound` is false, no
    sound is decoded and the clip has none. `frames` may select frames: the others stay black, need no conversion to
    RGB and, until they are written to, no memory.
    URIs (`core.storage`) are read through a temporary copy.
    Raises MediaError for a file that is missing, empty, truncated, damaged, too short or without video, and
    ValueError for a value that is not positive.
    """
    check_positive(
        fps=fps, height=height, width=width, num_frames=num_frames, sample_rate=sample_rate, num_channels=num_channels
    )
    with local_clip(path, audio_path if sound else None) as (file, sound_file):
        scan = scan_file(file)
        if scan.video is None:
            raise MediaError(file, "has no video stream")
        video = _read_video(file, scan, scan.video, fps, height, width, num_frames, frames)
        new_fps = float(fps or scan.video.fps)
        length_s = None if num_frames is None else num_frames / new_fps
        audio, rate = _read_sound(file, scan, sound_file, length_s) if sound else (empty_audio(), 0)
        audio, rate = convert_audio(audio, rate, sample_rate, num_channels)
        if length_s is not None and rate:
            audio = fit_length(audio, round(length_s * rate))
    return AVClip(video, new_fps, audio, rate)


def read_sound(path: str | Path, *, audio_path: str | Path | None = None) -> AVClip:
    """Read the sound of a clip as `read_clip` does, without decoding the video; audio-only files are accepted too.

    The video of the returned clip is one black pixel, shown for the whole length, so that `duration_s` is correct.
    Raises MediaError for an unusable file, or one with neither video nor sound.
    """
    with local_clip(path, audio_path) as (file, sound_file):
        scan = scan_file(file)
        if scan.video is None and sound_file is None:
            audio, rate = read_sound_file(file, None)
        else:
            audio, rate = _read_sound(file, scan, sound_file, None)
        if scan.video is None and not rate:
            raise MediaError(file, "has neither a video stream nor any sound")
    duration_s = scan.video.num_frames / scan.video.fps if scan.video else audio.shape[1] / rate
    return AVClip(np.zeros((1, 1, 1, 3), dtype=np.uint8), 1 / duration_s, audio, rate)


def _read_video(
    path: str | Path,
    scan: Scan,
    timing: VideoTiming,
    fps: float | None,
    height: int | None,
    width: int | None,
    num_frames: int | None,
    frames: FrameChoice | None,
) -> np.ndarray:
    """Decode frames, uint8 (T, H, W, 3). Only frames that are selected and shown are converted; the rest is black."""
    # At the file's own frame rate, timestamp jitter must not repeat one frame and drop the next.
    tolerance = TIMESTAMP_TOLERANCE_S if fps else 0.5 / timing.fps
    duration = timing.end_s - timing.start_s if fps else timing.num_frames / timing.fps
    rate = fps or timing.fps
    available = max(1, round(duration * rate))  # what `at_rate` yields
    chosen = _chosen(frames, num_frames or available, available, rate)
    video: np.ndarray | None = None
    size, converted, place = (0, 0), None, 0  # size of the first frame; the last converted frame and its index
    with open_media(path) as container:
        shown = at_rate(_frames(container, scan, timing), rate, duration, tolerance)
        for index, frame in enumerate(islice(shown, num_frames)):
            if index not in chosen and (frame.height, frame.width) == size:
                continue
            if video is not None and frame is converted:
                video[index] = video[place]
            else:
                image = resize_frame(to_rgb(container, frame), height, width)
                if video is None:
                    video = np.zeros((min(num_frames or available, available), *image.shape), np.uint8)
                    size = frame.height, frame.width
                if image.shape != video.shape[1:]:
                    raise MediaError(path, "changes its picture size: give a height and width to resize all frames to")
                video[index] = image
            converted, place = frame, index
    if video is None:
        raise MediaError(path, "is damaged: no frame can be decoded")
    return video if num_frames is None else fit_num_frames(video, num_frames, rate)


def _chosen(frames: FrameChoice | None, num_frames: int, available: int, fps: float) -> Container[int]:
    """Return the indices of the frames to convert; a missing frame at the end is a repetition of the last one."""
    everything = range(num_frames)
    indices = None if frames is None else frames(num_frames, fps)
    if indices is None:
        return everything
    return {min(everything[index], available - 1) for index in indices if -num_frames <= index < num_frames}


def _frames(container: Any, scan: Scan, timing: VideoTiming) -> Iterator[tuple[float, Any]]:
    """Yield the decoded frames with their times in seconds after the first frame."""
    for index, frame in enumerate(container.decode(container.streams[scan.video_index])):
        yield (index / timing.fps if frame.time is None else frame.time - timing.start_s), frame


def to_rgb(container: Any, frame: Any) -> np.ndarray:
    """Convert a decoded frame to uint8 RGB (H, W, 3), upright and without the padding that `write_clip` adds."""
    image = frame.to_ndarray(format="rgb24", interpolation=ACCURATE)
    height, width = original_size(container, frame.height, frame.width)
    return np.ascontiguousarray(np.rot90(image[:height, :width], frame.rotation // 90))


def read_sound_file(path: str | Path, length_s: float | None) -> tuple[np.ndarray, int]:
    """Read a separate sound file, which starts at time 0: float32 (channels, samples), and its rate in Hz.

    `length_s` allows decoding to stop early, as in `read_video_sound`.
    """
    if Path(path).suffix.lower() == ".wav":
        return read_wav(path)
    scan = scan_file(path)
    if scan.audio_index is None:
        raise MediaError(path, "has no audio stream")
    return _decode_audio(path, scan, scan.audio_start_s, length_s)


def read_video_sound(path: str | Path, scan: Scan, length_s: float | None) -> tuple[np.ndarray, int]:
    """Read the sound of a scanned video file from its first frame on: float32 (channels, samples), and its rate in Hz.

    Decodes at least `length_s` seconds if the sound is that long (None: all of it). A file without sound gives shape
    (0, 0) and rate 0.
    """
    if scan.audio_index is None:
        return empty_audio(), 0
    assert scan.video is not None
    return _decode_audio(path, scan, scan.video.start_s, length_s)


def _read_sound(
    path: str | Path, scan: Scan, audio_path: str | Path | None, length_s: float | None
) -> tuple[np.ndarray, int]:
    return read_video_sound(path, scan, length_s) if audio_path is None else read_sound_file(audio_path, length_s)


def _decode_audio(path: str | Path, scan: Scan, origin_s: float, length_s: float | None) -> tuple[np.ndarray, int]:
    """Decode sound from `origin_s` on the container's timeline, for at least `length_s` seconds if there are that many.

    Frames are joined without gaps, unless a timestamp shows a gap, which is filled with zeros, or an overlap.
    """
    placed: list[tuple[int, np.ndarray]] = []  # first sample counted from origin_s (may be negative), (channels, n)
    rate = cursor = 0
    with open_media(path) as container:
        for frame in container.decode(container.streams[scan.audio_index]):
            samples = _frame_samples(frame)
            if placed and (rate != frame.sample_rate or len(samples) != len(placed[0][1])):
                raise MediaError(path, "changes its sampling rate or channels midway: re-encode its sound")
            rate = frame.sample_rate
            start = cursor if frame.time is None else round((frame.time - origin_s) * rate)
            if placed and abs(start - cursor) <= MAX_JITTER_S * rate:
                start = cursor
            placed.append((start, samples))
            cursor = start + samples.shape[1]
            if length_s is not None and cursor > (length_s + 1) * rate:  # one second more, for the resampler
                break
    if not placed:
        raise MediaError(path, "is damaged: no sound can be decoded")
    # Codecs with fixed frame sizes pad the last packet; its duration gives the valid part.
    end = min(cursor, round((scan.audio_end_s - origin_s) * rate))
    return (_assemble(placed, end), rate) if end > 0 else (empty_audio(), 0)


def _assemble(placed: list[tuple[int, np.ndarray]], end: int) -> np.ndarray:
    audio = np.zeros((len(placed[0][1]), end), dtype=np.float32)
    for start, samples in placed:
        samples = samples[:, max(0, -start) :]
        start = max(0, start)
        audio[:, start : start + samples.shape[1]] = samples[:, : max(0, end - start)]
    return np.clip(np.nan_to_num(audio), -1.0, 1.0)


def _frame_samples(frame: Any) -> np.ndarray:
    samples = frame.to_ndarray()
    if not frame.format.is_planar:  # (1, samples * channels), interleaved
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    return pcm_to_float(samples)
