"""Training of the tiny codecs on rendered scenes; no clip is used twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from tqdm import trange

from model.javisdit.codecs.tiny import CodecConfig, FrameGroupVideoCodec, MelAudioCodec, TinyCodec
from model.optimizers import Muon
from synthetic.render import render_audio, render_video
from synthetic.scene import HEIGHT, scene_from_seed

VIDEO_SCENES_PER_STEP = 16
VIDEO_GROUPS_PER_STEP = 24
AUDIO_SCENES_PER_STEP = 10
LEARNING_RATE = 4e-3
LATENT_NOISE = 0.1  # replaces a learned posterior width, which starts at 1 and hides the mean for many steps
LATENT_WEIGHT = 1e-3
NORM_GROUPS = 16
WARMUP_STEPS = 20
STATISTICS_STEPS = 12
Codec = TypeVar("Codec", bound=TinyCodec)
MEL_FLOOR, MEL_SCALE = -8.0, 4.5  # maps the rendered dither below the floor and a full-scale tone to about +1


def train_video_codec(num_steps: int) -> FrameGroupVideoCodec:
    """Train the video codec: latents of 8 channels and 8x8 positions for each group of 4 frames at 64x64 pixels."""
    fold = 2
    channels = 4 * 3 * fold**2
    autoencoder = AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(48, 64, 96),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=NORM_GROUPS,
        sample_size=HEIGHT // fold,
    )
    codec = FrameGroupVideoCodec(autoencoder, CodecConfig((0.0,) * 8, (1.0,) * 8, pixel_fold=fold))

    def batch(step: int) -> Tensor:
        first = step * VIDEO_SCENES_PER_STEP
        video = np.stack([render_video(scene_from_seed(first + i)) for i in range(VIDEO_SCENES_PER_STEP)])
        planes = codec.to_planes(torch.from_numpy(video)).flatten(0, 1)
        return planes[torch.randperm(len(planes))[:VIDEO_GROUPS_PER_STEP]]

    return _train(codec, batch, num_steps, "video codec")


def train_audio_codec(num_steps: int) -> MelAudioCodec:
    """Train the audio codec: latents of 8 channels, each for 4 mel frames and 4 bands; AudioLDM2's layout, narrower."""
    autoencoder = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=NORM_GROUPS,
        mid_block_add_attention=False,
    )
    config = CodecConfig((0.0,) * 8, (1.0,) * 8, mel_floor=MEL_FLOOR, mel_scale=MEL_SCALE)
    codec = MelAudioCodec(autoencoder, config)

    def batch(step: int) -> Tensor:
        first = step * AUDIO_SCENES_PER_STEP
        audio = np.concatenate([render_audio(scene_from_seed(first + i)) for i in range(AUDIO_SCENES_PER_STEP)])
        return codec.to_planes(torch.from_numpy(audio))

    return _train(codec, batch, num_steps, "audio codec")


def _train(codec: Codec, batch: Callable[[int], Tensor], num_steps: int, name: str) -> Codec:
    """Train with L1 and L2 reconstruction losses from slightly noisy latents, then set the latent statistics.

    A penalty on the latents bounds their size.
    """
    module: nn.Module = codec.autoencoder
    module.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # missing in the stubs
    autoencoder = codec.autoencoder
    optimizer = Muon(autoencoder, LEARNING_RATE)
    for step in (progress := trange(num_steps, desc=name)):
        planes = batch(step).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latents = autoencoder.encode(planes).latent_dist.mode()
            decoded = autoencoder.decode(latents + LATENT_NOISE * torch.randn_like(latents)).sample
        error = decoded.float() - planes
        loss = error.abs().mean() + 2 * error.square().mean() + LATENT_WEIGHT * latents.float().square().mean()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _warmup_cosine(step, num_steps)
        optimizer.step()
        optimizer.zero_grad()
        progress.set_postfix(l1=f"{error.abs().mean().item():.4f}")
    return _with_statistics(codec, batch, num_steps)


@torch.no_grad()
def _with_statistics(codec: Codec, batch: Callable[[int], Tensor], first_step: int) -> Codec:
    codec.autoencoder.eval()
    batches = [batch(first_step + index) for index in range(STATISTICS_STEPS)]
    means = torch.cat([codec.autoencoder.encode(planes).latent_dist.mode() for planes in batches])
    mean, std = means.mean(dim=(0, 2, 3)), means.std(dim=(0, 2, 3))
    config = replace(codec.config, latents_mean=tuple(mean.tolist()), latents_std=tuple(std.tolist()))
    return type(codec)(codec.autoencoder, config)


def _warmup_cosine(step: int, num_steps: int) -> float:
    progress = min(step / num_steps, 1.0)
    return min((step + 1) / WARMUP_STEPS, 1.0) * (0.5 * (1 + np.cos(np.pi * progress)) * 0.98 + 0.02)
