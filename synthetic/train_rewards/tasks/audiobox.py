"""Training task of the tiny AudioBox: predict how strongly the sound of a Bounce clip is corrupted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rewards.audiobox.checkpoint import save_network
from rewards.audiobox.config import AXES, AudioBoxConfig, EncoderConfig
from rewards.audiobox.network import AestheticsNetwork
from rewards.audiobox.windows import cut_windows, to_mono
from synthetic.corrupt import SOUND, corrupt
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed
from synthetic.train_rewards.training import area_under_roc

MEAN, DEVIATION = 5.0, 2.5  # approximate mean and standard deviation of the scores
AUDIOBOX = AudioBoxConfig(
    proj_num_layer=2,
    nth_layer=4,
    target_transform={axis: {"mean": MEAN, "std": DEVIATION} for axis in AXES},
    wavlm=EncoderConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(32,) * 7,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=4,
        num_buckets=32,
        max_bucket_distance=200,
    ),
)


@dataclass(frozen=True)
class AudioBoxTask:
    """Task of AudioBox: quality falls with the strength of a corruption, complexity is the number of impacts."""

    name: str = "audiobox"
    batch_size: int = 16

    def network(self) -> AestheticsNetwork:
        return AestheticsNetwork(AUDIOBOX)

    def loss(self, network: AestheticsNetwork, seeds: range) -> tuple[Tensor, float]:
        """Return the squared error of the normalised axes, and the share of pairs whose clean sound scores higher."""
        sounds, wanted = zip(*(self._example(seed) for seed in seeds), strict=True)
        windows = cut_windows(sounds)
        predicted = network(windows.samples, windows.num_valid)  # (B, 4)
        targets = (torch.tensor(wanted) - MEAN) / DEVIATION
        mean = predicted.detach().mean(dim=1)
        return F.mse_loss(predicted, targets), area_under_roc(mean[::2], mean[1::2])

    def save(self, network: AestheticsNetwork, folder: Path) -> None:
        save_network(network, folder)

    @staticmethod
    def _example(seed: int) -> tuple[Tensor, tuple[float, ...]]:
        """Return mono sound, corrupted for odd seeds, and its target scores in the order of the axes."""
        scene, rng = scene_from_seed(seed), np.random.default_rng((seed, 2))
        clip, quality = render_clip(scene), 1.0
        if seed % 2:
            clip, _, strength = corrupt(clip, SOUND, rng)
            quality = 0.6 * (1 - strength)
        enjoyment = usefulness = 2 + 6 * quality
        return to_mono(clip.audio, clip.sample_rate), (enjoyment, usefulness, 2.0 + scene.num_impacts, 1 + 8 * quality)
