"""Small clips and files for the tests of media."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from media import AVClip

CLICK_S = 0.7


def moving_ball(num_frames=33, height=64, width=64) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    video = np.empty((num_frames, height, width, 3), np.uint8)
    video[:] = (40, 120, 200)
    for index in range(num_frames):
        inside = (columns - width * 0.3 - index * 0.5) ** 2 + (rows - height * 0.5) ** 2 < (min(height, width) / 8) ** 2
        video[index][inside] = (220, 40, 30)
    return video


def click(sample_rate: int, duration_s: float, at_s=CLICK_S, channels=1) -> np.ndarray:
    """Return silence with a click of 1 ms that starts at at_s."""
    audio = np.zeros((channels, round(duration_s * sample_rate)), np.float32)
    start = round(at_s * sample_rate)
    audio[:, start : start + max(2, sample_rate // 1000)] = 0.9
    return audio


def click_time(audio: np.ndarray, sample_rate: int) -> float:
    """Return the start of the 1 ms click in one channel (samples,): the centre of its energy minus half its length."""
    energy = audio.astype(np.float64) ** 2
    energy[energy < 0.1 * energy.max()] = 0
    centre = float((energy * np.arange(len(energy))).sum() / energy.sum())
    return (centre + 0.5) / sample_rate - 0.0005


def make_clip(sample_rate=16000, channels=1, num_frames=33, height=64, width=64, fps=16.0) -> AVClip:
    audio = click(sample_rate, num_frames / fps, channels=channels)
    return AVClip(moving_ball(num_frames, height, width), fps, audio, sample_rate)


def numbered_frames(count: int, size: int = 32) -> np.ndarray:
    """Return grey frames whose level gives their number (7 levels apart: count <= 34)."""
    levels = np.arange(count, dtype=np.uint8) * 7 + 10
    return np.broadcast_to(levels[:, None, None, None], (count, size, size, 3)).copy()


def frame_numbers(video: np.ndarray) -> list[int]:
    return [round((float(frame.mean()) - 10) / 7) for frame in video]


def write_raw(
    path: Path,
    video: np.ndarray,
    times_s: Iterable[float],
    audio: np.ndarray | None = None,
    sample_rate: int = 48000,
    audio_start_s: float = 0.0,
    audio_codec: str = "aac",
    audio_gap_s: tuple[float, float] = (0.0, 0.0),
) -> Path:
    """Encode frames at given times and sound from a given time on, without the safeguards of write_clip."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt = video.shape[1], video.shape[2], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        sound = None
        if audio is not None:
            sound = container.add_stream(audio_codec, rate=sample_rate, layout="stereo" if len(audio) == 2 else "mono")
        for image, time in zip(video, times_s, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None and audio is not None:
            for start in range(0, audio.shape[1], 1024):
                if audio_gap_s[0] < start / sample_rate < audio_gap_s[1]:
                    continue
                part = np.ascontiguousarray(audio[:, start : start + 1024])
                samples = av.AudioFrame.from_ndarray(part, "fltp", "stereo" if len(audio) == 2 else "mono")
                samples.sample_rate, samples.time_base = sample_rate, Fraction(1, sample_rate)
                samples.pts = start + round(audio_start_s * sample_rate)
                resampler = av.AudioResampler(sound.codec_context.format, sound.layout, sample_rate)
                for converted in resampler.resample(samples):
                    container.mux(sound.encode(converted))
            container.mux(sound.encode(None))
    return path


def set_rotation(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write the display matrix of x' = a x + c y, y' = b x + d y into the first track header of an mp4."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, times and ids (version 0), layer to reserved
    content[at : at + 20] = struct.pack(">5i", a << 16, b << 16, 0, c << 16, d << 16)
    path.write_bytes(content)
