"""Good clips of Bounce, prepared with the tiny preset: the input of `dpo.construct`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from media import AVClip, write_clip
from model.prepare.command import prepare
from model.prepare.config import PrepareConfig
from synthetic import caption, render_clip, scene_from_seed
from synthetic.scene import FPS, NUM_FRAMES, NUM_SAMPLES, SAMPLE_RATE

SCENES = [scene_from_seed(seed) for seed in (0, 1, 3, 5, 9)]
BEAT_S = 0.4
ODD_SOUNDS = ("steady", "beat", "middle")  # clips with the picture of a scene and another sound


def odd_sound(name):
    """A tone, clicks at a regular beat, or one click in the middle; float32 (1, samples)."""
    times = np.arange(NUM_SAMPLES) / SAMPLE_RATE
    if name == "steady":
        return (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)[None]
    clicks = np.arange(0.3, 1.9, BEAT_S) if name == "beat" else [NUM_FRAMES / FPS / 2]
    ringing = np.sin(2 * np.pi * 880 * times) * np.exp(-times / 0.03)
    sound = np.zeros(NUM_SAMPLES)
    for click in clicks:
        start = round(click * SAMPLE_RATE)
        sound[start:] += ringing[: NUM_SAMPLES - start]
    return (0.5 * sound).astype(np.float32)[None]


def prepare_latents(folder, scenes=SCENES, odd=()):
    """Write clips and their latents below `folder`, and return the folder of the latents."""
    clips = {f"scene-{scene.seed}": (render_clip(scene), caption(scene)) for scene in scenes}
    for name in odd:
        clips[name] = (AVClip(render_clip(scenes[0]).video, FPS, odd_sound(name), SAMPLE_RATE), "a ball")
    for name, (clip, _) in clips.items():
        write_clip(clip, folder / f"{name}.mp4")
    rows = [
        {"prompt_id": name, "video_path": f"{name}.mp4", "audio_path": f"{name}.wav", "prompt": text}
        for name, (_, text) in clips.items()
    ]
    pd.DataFrame(rows).to_csv(folder / "clips.csv", index=False)
    prepare(PrepareConfig(clips=str(folder / "clips.csv"), output=str(folder / "latents")))
    return folder / "latents"
