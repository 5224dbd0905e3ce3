"""Codecs of the published architectures with random weights, so small that a clip takes milliseconds."""

from __future__ import annotations

import json

import torch
from diffusers import AutoencoderKL, AutoencoderKLWan
from safetensors.torch import save_file
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from model.javisdit.codecs.audioldm2 import AudioLDM2Codec
from model.javisdit.codecs.wan import WanVideoCodec
from tests.model.javisdit.golden import ROOT

WAN_MANIFEST = json.loads((ROOT / "tests/golden/model/manifest_wan21_vae.json").read_text(encoding="utf-8"))


def small_wan(base_dim=4, **config):
    torch.manual_seed(0)
    return WanVideoCodec(AutoencoderKLWan(base_dim=base_dim, **config).eval().requires_grad_(False))


def save_wan_original(path):
    """Write a small network's weights to one file under the original names, and return the network."""
    codec = small_wan()
    state = codec.autoencoder.state_dict()
    original = {old: state[new] for old, new in WAN_MANIFEST["diffusers_name"].items()}
    save_file(original, path) if path.suffix == ".safetensors" else torch.save(original, path)
    return codec


def small_audioldm2():
    torch.manual_seed(0)
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[4, 4, 8],
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=2,
        scaling_factor=0.41,
    )
    return AudioLDM2Codec(vae.eval(), SpeechT5HifiGan(vocoder_config()).eval()).requires_grad_(False)


def vocoder_config(**changes):
    config = {
        "model_in_dim": 64,
        "upsample_initial_channel": 32,
        "upsample_rates": [5, 4, 2, 2, 2],
        "upsample_kernel_sizes": [16, 16, 8, 4, 4],
        "normalize_before": False,
    }
    return SpeechT5HifiGanConfig(**config | changes)


def save_audioldm2(folder):
    small_audioldm2().save_pretrained(folder)
