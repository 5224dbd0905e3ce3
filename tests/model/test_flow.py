"""Noising, shift, velocity and sampling as published."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import torch

from model.flow import (
    add_noise,
    euler_step,
    guide,
    sample_timesteps,
    sampling_timesteps,
    shift_timesteps,
    velocity_target,
)
from tests.model.javisdit.golden import Golden, published_model

GOLDEN = "model/rectified_flow.safetensors"


def test_shift_equals_the_published_one():
    golden = Golden(GOLDEN)
    names = [name.removesuffix(".in") for name in golden.names if name.endswith(".in")]
    assert names
    for name in names:
        scale, height, width, frames = re.fullmatch(r"shift\.scale([\d.]+)\.h(\d+)\.w(\d+)\.f(\d+)", name).groups()
        shifted = shift_timesteps(golden[f"{name}.in"], int(height), int(width), int(frames), float(scale))
        assert (shifted / 1000 - golden[f"{name}.out"] / 1000).abs().max() <= 1e-6


def test_noising_and_velocity_equal_the_published_ones():
    golden = Golden(GOLDEN)
    data, noise, timestep = (golden[f"noise.{name}"] for name in ("x0", "noise", "t"))
    assert (add_noise(data, noise, timestep) - golden["noise.xt"]).abs().max() <= 1e-6
    assert (velocity_target(data, noise) + golden["noise.velocity"]).abs().max() <= 1e-6


@pytest.mark.parametrize("shift", [False, True])
def test_euler_sampling_with_guidance_equals_the_published_one(shift):
    golden = Golden("model/euler_sampler.safetensors")
    model = published_model(golden)
    steps, scale = golden.metadata["steps"], golden.metadata["guidance_scale"]
    size = golden.metadata["shift_True"]
    grid = 1000 * (1 - torch.arange(steps + 1) / steps)
    if shift:
        grid = sampling_timesteps(steps, size["height"], size["width"], size["num_frames"], 1.0)
    video, audio = golden["video"], golden["audio"]
    text = torch.cat([golden["text"], golden["neg_text"]])
    mask = torch.cat([golden["text_mask"], golden["neg_text_mask"]])
    for now, then in pairwise(grid):
        with torch.no_grad():
            velocity = model(video.repeat(2, 1, 1, 1, 1), audio.repeat(2, 1, 1, 1), now.repeat(4), text, mask)
        video = euler_step(video, guide(velocity.video, scale), now, then)
        audio = euler_step(audio, guide(velocity.audio, scale), now, then)
    for name, result in (("video", video), ("audio", audio)):
        expected = golden[f"shift_{shift}.{name}"]
        assert (result - expected).abs().max() <= 1e-4 * expected.std()


def test_training_timesteps_are_logit_normal_and_reproducible():
    timesteps = sample_timesteps(4000, torch.Generator().manual_seed(0))
    assert torch.equal(timesteps, sample_timesteps(4000, torch.Generator().manual_seed(0)))
    logits = torch.logit(timesteps / 1000)
    assert abs(logits.mean()) < 0.05
    assert abs(logits.std() - 1) < 0.05


def test_the_sampling_grid_runs_from_noise_to_data():
    grid = sampling_timesteps(8, 64, 64, 33, 5.0)
    assert grid[0] == 1000
    assert grid[-1] == 0
    assert (grid.diff() < 0).all()
