"""Reader of a training sample's part of a media file: frames from any position, and sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from media.clip import MediaError
from media.convert import TIMESTAMP_TOLERANCE_S, at_rate, convert_audio
from media.probe import open_media, scan_file
from media.read import read_sound_file, read_video_sound, to_rgb

SEEK_MARGIN_S = 1.0  # containers index decoding times, which may be some frames before display times


class VideoFile:
    """A video file at a constant frame rate. Packets are scanned once; only requested pictures are decoded to RGB."""

    def __init__(self, path: str | Path, fps: float) -> None:
        """Scan the file.

        Args:
            path: the video file.
            fps: rate at which frames are counted; in a file of another rate, frame n is the latest at time n / fps.

        Raises:
            MediaError: a missing, empty, truncated or damaged file, or one without video.
        """
        self.path = path
        self.fps = fps
        self._scan = scan_file(path)
        if self._scan.video is None:
            raise MediaError(path, "has no video stream")
        self._timing = self._scan.video

    @property
    def num_frames(self) -> int:
        """The number of frames of the whole file, as in `read_clip(path, fps=fps)`."""
        return max(1, round((self._timing.end_s - self._timing.start_s) * self.fps))

    def frames(self, start: int, num_frames: int) -> np.ndarray:
        """Read frames uint8 (num_frames, H, W, 3) from number `start` on, in the file's own size.

        Decoding begins at an earlier key frame; no other picture is converted to RGB.

        Raises:
            MediaError: the file is too short, damaged, or changes its picture size.
        """
        if start + num_frames > self.num_frames:
            raise MediaError(
                self.path,
                f"has {self.num_frames} frames at {self.fps:g} fps, but {num_frames} from number {start} on are needed",
            )
        images = self._decode(start, num_frames, seek=True) or self._decode(start, num_frames, seek=False)
        if not images:
            raise MediaError(self.path, "is damaged: no frame can be decoded")
        if any(image.shape != images[0].shape for image in images):
            raise MediaError(self.path, "changes its picture size within the file: re-encode it")
        if len(images) != num_frames:
            raise MediaError(self.path, f"is damaged: {len(images)} of {num_frames} frames can be decoded")
        return np.stack(images)

    def sound(self, sample_rate: int, end_s: float | None = None) -> np.ndarray:
        """Read the file's own sound from the first frame on, mono float32 (samples,), at least up to `end_s`.

        Raises:
            MediaError: the sound is missing or damaged.
        """
        audio, rate = read_video_sound(self.path, self._scan, end_s)
        return _mono(self.path, audio, rate, sample_rate)

    def _decode(self, start: int, num_frames: int, seek: bool) -> list[np.ndarray]:
        """Decode frames; return none when seeking failed, as in a file with an unusual index."""
        origin_s = self._timing.start_s + start / self.fps
        images: list[np.ndarray] = []
        with open_media(self.path) as container:
            stream = container.streams[self._scan.video_index]
            if seek and not _seek(container, stream, origin_s - SEEK_MARGIN_S, self._timing.start_s):
                return []
            previous = None
            times = self._times(container.decode(stream), origin_s, seek)
            for frame in at_rate(times, self.fps, num_frames / self.fps, TIMESTAMP_TOLERANCE_S):
                images.append(images[-1] if frame is previous else to_rgb(container, frame))
                previous = frame
        return images

    def _times(self, frames: Iterator[Any], origin_s: float, seek: bool) -> Iterator[tuple[float, Any]]:
        """Yield frames with times relative to `origin_s`; the last frame with a negative time may be displayed at 0."""
        for index, frame in enumerate(frames):
            time = frame.time
            if seek and index == 0 and (time is None or time > origin_s + TIMESTAMP_TOLERANCE_S):
                return
            if time is None:
                time = self._timing.start_s + index / self._timing.fps
            yield time - origin_s, frame


def read_sound(path: str | Path, sample_rate: int, end_s: float | None = None) -> np.ndarray:
    """Read the sound of a sound file, or of a video without its picture: mono float32 (samples,).

    Args:
        path: the media file.
        sample_rate: of the result, in Hz.
        end_s: in seconds; sound some time after it may be left out.

    Raises:
        MediaError: a missing or damaged file, or one without sound.
    """
    audio, rate = read_sound_file(path, end_s)
    return _mono(path, audio, rate, sample_rate)


def _mono(path: str | Path, audio: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    if rate == 0:
        raise MediaError(path, "has no sound")
    return convert_audio(audio, rate, sample_rate, 1)[0][0]


def _seek(container: Any, stream: Any, time_s: float, start_s: float) -> bool:
    """Seek to a key frame at or before `time_s`; return False for a file without seeking."""
    if time_s <= start_s:
        return True  # the container is at the beginning
    try:
        container.seek(int(time_s / stream.time_base), stream=stream)
    except av.error.FFmpegError:
        return False
    return True
