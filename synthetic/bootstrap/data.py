"""Preparation of rendered scenes as latents for training, without compressed media files in between."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import save_file
from tqdm import tqdm

from core.atomic import atomic_path
from model.data.latent_schema import NEGATIVE_TEXT_NAME, dataset_features
from model.javisdit.codecs.tiny import FrameGroupVideoCodec, MelAudioCodec
from model.javisdit.text import TextEncoder
from synthetic.captions import caption
from synthetic.render import render_audio, render_video
from synthetic.scene import FPS, HEIGHT, NUM_FRAMES, WIDTH, Scene, scene_from_seed

SCENES_PER_CALL = 16


def prepare_scenes(
    seeds: Sequence[int],
    video_codec: FrameGroupVideoCodec,
    audio_codec: MelAudioCodec,
    text_encoder: TextEncoder,
    negative_prompt: str,
    folder: Path,
) -> None:
    """Write a folder for `LatentDataset.load`: one row per scene, with the scene's own caption.

    Args:
        seeds: seeds of the scenes.
        video_codec, audio_codec, text_encoder: encoders of the tiny preset.
        negative_prompt: text that replaces dropped captions.
        folder: folder to write to.
    """
    rows: list[dict[str, Any]] = []
    for first in tqdm(range(0, len(seeds), SCENES_PER_CALL), desc=f"encode {folder.name}"):
        scenes = [scene_from_seed(seed) for seed in seeds[first : first + SCENES_PER_CALL]]
        rows += _encode(scenes, video_codec, audio_codec, text_encoder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / NEGATIVE_TEXT_NAME) as path:
        save_file({"embeds": text_encoder([negative_prompt]).embeds[0].contiguous()}, path)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    Dataset.from_dict(columns, features=dataset_features()).save_to_disk(str(folder))


@torch.inference_mode()
def _encode(
    scenes: list[Scene], video_codec: FrameGroupVideoCodec, audio_codec: MelAudioCodec, text_encoder: TextEncoder
) -> list[dict[str, Any]]:
    with torch.autocast("cpu", torch.bfloat16):
        video = video_codec.encode(torch.from_numpy(np.stack([render_video(scene) for scene in scenes])))
        audio = audio_codec.encode(torch.from_numpy(np.concatenate([render_audio(scene) for scene in scenes])))
    captions = [caption(scene) for scene in scenes]
    texts = text_encoder(captions).trimmed()
    return [
        {
            "clip_id": f"scene-{scene.seed}",
            "prompt": prompt,
            "text_embeds": text.half().flatten().numpy(),
            "text_length": text.shape[0],
            "text_dim": text.shape[1],
            "video_latents": pixels.half().flatten().numpy(),
            "video_latents_shape": list(pixels.shape),
            "audio_latents": sound.half().flatten().numpy(),
            "audio_latents_shape": list(sound.shape),
            "num_frames": NUM_FRAMES,
            "height": HEIGHT,
            "width": WIDTH,
            "fps": FPS,
        }
        for scene, prompt, text, pixels, sound in zip(scenes, captions, texts, video, audio, strict=True)
    ]
