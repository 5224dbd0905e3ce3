"""Small AudioBox networks and clips for the tests."""

from __future__ import annotations

import numpy as np
import torch

from media import AVClip
from rewards.audiobox.config import AudioBoxConfig, EncoderConfig
from rewards.audiobox.network import AestheticsNetwork

TINY_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embedding_groups": 4,
}


def tiny_network(seed: int = 0, **settings) -> AestheticsNetwork:
    torch.manual_seed(seed)
    encoder = EncoderConfig(**TINY_SIZES)
    config = AudioBoxConfig(**{"nth_layer": encoder.num_layer_results, "wavlm": encoder, **settings})
    network = AestheticsNetwork(config)
    torch.nn.init.normal_(network.wavlm.encoder.layers[0].attention.rel_attn_embed.weight)
    for parameter in network.proj_layer.parameters():  # larger than usual, so that scores of two sounds differ clearly
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def sounding_clip(seconds: float, sample_rate: int = 16_000, channels: int = 1, seed: int = 0) -> AVClip:
    """A tone in noise whose pitch, level and noise depend on the seed."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    tone = np.sin(2 * np.pi * generator.uniform(100, 2000) * time) * generator.uniform(0.1, 0.6)
    noise = generator.normal(size=(channels, len(time))) * generator.uniform(0.01, 0.1)
    return clip_of(np.clip(tone + noise, -1, 1).astype(np.float32), sample_rate)


def clip_of(audio: np.ndarray, sample_rate: int) -> AVClip:
    return AVClip(np.zeros((1, 2, 2, 3), dtype=np.uint8), 16.0, audio, sample_rate)


def silent_clip() -> AVClip:
    return clip_of(np.zeros((0, 0), dtype=np.float32), 0)
