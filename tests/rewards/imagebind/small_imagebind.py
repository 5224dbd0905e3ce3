"""An ImageBind small enough for every test: all of the full-size code, at the sizes of the tiny preset."""

from __future__ import annotations

import numpy as np
import torch

from media import AVClip
from rewards.imagebind import ImageBindReward
from rewards.imagebind.config import AudioConfig, ImageBindConfig, ImageConfig, TextConfig, VisionConfig
from rewards.imagebind.encoder import ImageBindEncoder
from rewards.imagebind.loading import USED
from rewards.imagebind.network import ImageBind
from rewards.imagebind.tokenizer import TextTokenizer, train_clip_tokenizer

CAPTIONS = ("a small red ball bounces three times", "a large blue ball on green, struck wood on the left")
CONTEXT_LENGTH = 16


def small_tokenizer() -> TextTokenizer:
    return TextTokenizer(train_clip_tokenizer(CAPTIONS, 40), CONTEXT_LENGTH)


def small_config(vocab_size: int) -> ImageBindConfig:
    return ImageBindConfig(
        embed_dim=32,
        vision=VisionConfig(width=48, blocks=2, heads=4, image_size=32, patch_size=8),
        text=TextConfig(width=32, blocks=2, heads=2, vocab_size=vocab_size, context_length=CONTEXT_LENGTH),
        audio=AudioConfig(width=48, blocks=2, heads=3, mel_bins=64, mel_frames=204),
        depth=ImageConfig(width=32, blocks=1, heads=2, image_size=32, patch_size=8),
        thermal=ImageConfig(width=32, blocks=1, heads=2, image_size=32, patch_size=8),
    )


def small_encoder(protocol="correct", modalities=USED) -> ImageBindEncoder:
    """Random weights, drawn wide, so that different inputs have different embeddings."""
    tokenizer = small_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ImageBind(small_config(tokenizer.vocab_size), modalities)
        for name, parameter in network.named_parameters():
            if "embed" in name or "proj" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return ImageBindEncoder(network, tokenizer, protocol)


def small_reward(protocol="correct") -> ImageBindReward:
    return ImageBindReward(small_encoder(protocol))


def noise_clip(seconds, *, fps=12.0, height=40, width=56, sample_rate=16_000, channels=1, seed=0) -> AVClip:
    """Pictures and sound that change all the time, the sound off centre; no sound for sample_rate=0."""
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (round(seconds * fps), height, width, 3), dtype=np.uint8)
    shape = (channels, round(seconds * sample_rate)) if sample_rate else (0, 0)
    return AVClip(video, fps, rng.uniform(-0.4, 0.5, shape).astype(np.float32), sample_rate)
