"""Write the clips of this folder: Bounce scenes as other encoders store them, with rates and sizes of their own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from synthetic import render_clip, scene_from_seed

HERE = Path(__file__).parent / "clips"


def pictures(num_frames: int, fps: float, height: int, width: int) -> np.ndarray:
    """Return frames (T, H, W, 3) of scene after scene at this rate, enlarged and finely textured."""
    scenes = [render_clip(scene_from_seed(seed)) for seed in range(5)]
    video = np.concatenate([scene.video for scene in scenes])
    video = video[(np.arange(num_frames) / fps * scenes[0].fps).astype(int) % len(video)]
    rows, columns = (np.arange(size) * side // size for size, side in ((height, 64), (width, 64)))
    texture = np.random.default_rng(0).integers(-12, 13, (height, width, 1))
    return np.clip(video[:, rows][:, :, columns] + texture, 0, 255).astype(np.uint8)


def sound(seconds: float, sample_rate: int, channels: int) -> np.ndarray:
    """Return the sound (C, samples) of scene after scene; further channels are quieter."""
    scenes = [render_clip(scene_from_seed(seed)) for seed in range(5)]
    mono = np.concatenate([scene.audio[0] for scene in scenes])
    times = np.arange(round(seconds * sample_rate)) / sample_rate * scenes[0].sample_rate
    mono = np.interp(times, np.arange(len(mono)), mono)
    return np.stack([mono / (index + 1) for index in range(channels)]).astype(np.float32)


def mux_sound(container: av.container.OutputContainer, stream: av.AudioStream, audio: np.ndarray) -> None:
    layout, rate = ("mono", "stereo")[len(audio) - 1], stream.rate
    resampler = av.AudioResampler(stream.codec_context.format, layout, rate)
    for start in range(0, audio.shape[1], 1024):
        part = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio[:, start : start + 1024]), "fltp", layout)
        part.sample_rate, part.pts, part.time_base = rate, start, Fraction(1, rate)
        for frame in resampler.resample(part):
            container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_mp4(name: str, codec: str, rate: Fraction, video: np.ndarray, audio: np.ndarray | None, crf: str) -> None:
    with av.open(str(HERE / name), "w") as container:
        options = {"crf": crf, "bf": "3"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *video.shape[1:3], "yuv420p", 60_000
        heard = None if audio is None else container.add_stream("aac", rate=44_100, layout="stereo")
        for picture in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
        if heard is not None:
            mux_sound(container, heard, audio)


def write_wav(name: str, codec: str, audio: np.ndarray, rate: int) -> None:
    with av.open(str(HERE / name), "w") as container:
        layout = ("mono", "stereo")[len(audio) - 1]
        mux_sound(container, container.add_stream(codec, rate=rate, layout=layout), audio)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    film, phone = Fraction(24), Fraction(30_000, 1001)
    write_mp4("film_24_silent.mp4", "mpeg4", film, pictures(126, 24, 136, 240), None, "36")
    frames = pictures(304, float(phone), 240, 136)
    write_mp4("phone_29.97_stereo.mp4", "libx264", phone, frames, sound(10.1, 44_100, 2), "36")
    write_wav("mono_22k_16bit.wav", "pcm_s16le", sound(2.0, 22_050, 1), 22_050)
    write_wav("stereo_16k_24bit.wav", "pcm_s24le", sound(1.5, 16_000, 2), 16_000)


if __name__ == "__main__":
    main()
