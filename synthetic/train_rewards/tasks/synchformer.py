"""Training task of the tiny Synchformer: predict the offset of the sound of a Bounce clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.synchformer.config import SynchformerConfig
from rewards.synchformer.frontends import cut_frames, mel_segments, normalise_frames, prepare_frames, prepare_waveform
from rewards.synchformer.loading import save_network
from rewards.synchformer.network import Synchformer
from rewards.synchformer.windows import offset_grid
from synthetic.corrupt import shift_sound
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed

SYNCHFORMER = SynchformerConfig(
    image_size=64,
    visual_width=64,
    visual_depth=2,
    visual_heads=4,
    audio_width=64,
    audio_depth=2,
    audio_heads=4,
    num_segments=5,  # a whole Bounce clip
    fusion_width=64,
    fusion_depth=2,
    fusion_heads=4,
    num_offsets=11,
    max_offset_s=1.0,
)
OFFSET_JITTER_S = 0.06  # around the offset of a class; the next class is 0.2 s away


@dataclass(frozen=True)
class SynchformerTask:
    """Task of Synchformer: classify the offset of the sound."""

    name: str = "synchformer"
    batch_size: int = 16

    def network(self) -> Synchformer:
        return Synchformer(SYNCHFORMER)

    def loss(self, network: Synchformer, seeds: range) -> tuple[Tensor, float]:
        """Return the cross-entropy of the offset's class, and the share of right classes."""
        frames, mels, classes = zip(*(self._example(seed) for seed in seeds), strict=True)
        logits = network(torch.stack(frames), torch.stack(mels))
        targets = torch.tensor(classes)
        return F.cross_entropy(logits, targets), (logits.argmax(dim=1) == targets).float().mean().item()

    def save(self, network: Synchformer, folder: Path) -> None:
        save_network(network.half(), folder)

    @staticmethod
    def _example(seed: int) -> tuple[Tensor, Tensor, int]:
        """Return the segments of a window, (S, T, 3, H, W) and (S, 1, mels, frames), and the class of the offset."""
        config, rng = SYNCHFORMER, np.random.default_rng((seed, 3))
        target = int(rng.integers(config.num_offsets))
        offset = float(offset_grid(config.num_offsets, config.max_offset_s)[target])  # > 0: the sound is early
        clip = shift_sound(render_clip(scene_from_seed(seed)), -offset + rng.uniform(-1, 1) * OFFSET_JITTER_S)
        frames = prepare_frames(clip, config.frames_of(config.num_segments), config)
        wave = prepare_waveform(clip, config.samples_of(config.num_segments), config)
        return torch.stack(cut_frames(normalise_frames(frames), config)), mel_segments(wave, config), target
