"""A Synchformer small enough for every test: all of the full-size code, at the sizes of the tiny preset."""

from __future__ import annotations

import numpy as np
import torch

from media import AVClip
from rewards.synchformer import SynchformerConfig, SynchformerReward
from rewards.synchformer.network import Synchformer
from tests.rewards.procedural import fill

SMALL = SynchformerConfig(
    image_size=64,
    visual_width=96,
    visual_depth=2,
    visual_heads=4,
    audio_width=96,
    audio_depth=2,
    audio_heads=4,
    num_segments=5,
    fusion_width=96,
    fusion_depth=2,
    fusion_heads=4,
)


def small_network(seed: int = 1) -> Synchformer:
    """Weights under which the logits follow the input closely, as torch's own random ones do not."""
    with torch.device("meta"):
        network = Synchformer(SMALL)
    return fill(network, seed)


def small_reward(protocol: str = "correct") -> SynchformerReward:
    return SynchformerReward(small_network(), protocol)


def noise_clip(seconds, *, fps=25, height=64, width=64, sample_rate=16_000, channels=1, seed=0) -> AVClip:
    """Pictures and sound that change all the time; no sound for sample_rate=0."""
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (round(seconds * fps), height, width, 3), dtype=np.uint8)
    shape = (channels, round(seconds * sample_rate)) if sample_rate else (0, 0)
    return AVClip(video, fps, rng.uniform(-0.5, 0.5, shape).astype(np.float32), sample_rate)
