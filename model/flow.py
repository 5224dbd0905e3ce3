"""Rectified flow: timesteps, noising, the velocity target, the Euler step and classifier-free guidance.

Time runs from 0 (data) to 1000 (noise); x_t = (1 - t/1000) data + t/1000 noise; velocity = noise - data, which is the
convention of diffusers (the release predicts the opposite sign).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NUM_TRAIN_TIMESTEPS = 1000
# docs/upstream/training.md, section 3: training draws shifted timesteps; the published sampler does not shift, although
# its config has a shift.
TRAINING_SHIFT_SCALE = 5.0
INFERENCE_SHIFT_SCALE = 1.0


def shift_ratio(height: int, width: int, num_frames: int, scale: float) -> float:
    """Return r = scale * sqrt(height * width / 512^2) * sqrt(n), n = 5 * (num_frames // 17), or 1 for a single frame.

    Height and width are in pixels. The numbers 17 and 5 come from an older autoencoder, as published. From 2 to 16
    frames the release has n = 0, which turns every timestep into data; here n is 1.
    """
    temporal = 1 if num_frames == 1 else num_frames // 17 * 5
    return scale * math.sqrt(height * width / 512**2) * math.sqrt(max(temporal, 1))


def shift_timesteps(timestep: Tensor, height: int, width: int, num_frames: int, scale: float) -> Tensor:
    """Shift timesteps in [0, 1000] towards noise for larger and longer clips: t' = r t / (1 + (r - 1) t) on t/1000.

    `scale` is 5.0 in published training and 1.0 in published sampling; r is `shift_ratio`.
    """
    ratio = shift_ratio(height, width, num_frames, scale)
    sigma = timestep / NUM_TRAIN_TIMESTEPS
    return NUM_TRAIN_TIMESTEPS * ratio * sigma / (1 + (ratio - 1) * sigma)


def sample_timesteps(batch_size: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw logit-normal training timesteps before the shift, float32 (B,) in (0, 1000), on the CPU."""
    return torch.sigmoid(torch.randn(batch_size, generator=generator)) * NUM_TRAIN_TIMESTEPS


def sampling_timesteps(num_steps: int, height: int, width: int, num_frames: int, scale: float) -> Tensor:
    """Return the Euler grid, float32 (num_steps + 1,): from 1000 down to 0, shifted for the size of the clip."""
    uniform = NUM_TRAIN_TIMESTEPS * (1 - torch.arange(num_steps + 1) / num_steps)
    return shift_timesteps(uniform, height, width, num_frames, scale)


def add_noise(latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """Mix latents and noise, both (B, ...), at `timestep` (B,)."""
    sigma = _per_sample(timestep / NUM_TRAIN_TIMESTEPS, latents)
    return (1 - sigma) * latents + sigma * noise


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """Return the velocity that the network learns to predict: noise - data, (B, ...)."""
    return noise - latents


def euler_step(latents: Tensor, velocity: Tensor, timestep: Tensor, next_timestep: Tensor) -> Tensor:
    """Take one Euler step of dx/dt = velocity from `timestep` down to `next_timestep` (scalars)."""
    return latents + velocity * (next_timestep - timestep) / NUM_TRAIN_TIMESTEPS


def guide(velocity: Tensor, guidance_scale: float) -> Tensor:
    """Apply classifier-free guidance to velocities (2B, ...), conditional half first, and return (B, ...).

    The result is unconditional + guidance_scale * (conditional - unconditional).
    """
    conditional, unconditional = velocity.chunk(2)
    return unconditional + guidance_scale * (conditional - unconditional)


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
