"""Synchformer in a clone without the golden files: front ends against public packages, and numbers of a small network.

The numbers were noted when the code gave all the golden ones. A change of an eps, an order or a sign moves them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchaudio.transforms import MelSpectrogram
from torchvision.transforms import v2

from rewards.synchformer import SynchformerConfig
from rewards.synchformer.frontends import frame_indices, mel_segments, resize_and_crop
from tests.rewards.procedural import procedural_tensor
from tests.rewards.synchformer.small_synchformer import SMALL, small_network

SEGMENTS = SMALL.num_segments
NUMBERS = {
    "visual": [-0.686274, 0.244187, 0.304668, 0.116503],
    "audio": [-0.502322, -0.801818, -1.49059, -1.476052],
    "logits": [0.063608, 1.774811, 0.25493, -1.253027, 1.339962, -1.077844],
}


@pytest.fixture(scope="module")
def network():
    return small_network().eval()


def noise(name, *shape):
    return procedural_tensor(f"{name}.bias", (int(np.prod(shape)),), 0).view(shape) / 0.02  # of deviation 1


@torch.inference_mode()
def test_vectors_and_logits_of_a_small_network(network):
    visual = network.encode_video(noise("frames", SEGMENTS, 16, 3, 64, 64) / 20)
    audio = network.encode_audio(noise("mel", SEGMENTS, 1, 128, 66) / 20)
    logits = network.fuse(visual[None], audio[None])
    found = {"visual": visual[1, 2, :4], "audio": audio[3, 4, :4], "logits": logits[0, :6]}
    for name, expected in NUMBERS.items():
        torch.testing.assert_close(found[name], torch.tensor(expected), rtol=0, atol=2e-5, msg=lambda m, n=name: n + m)


def test_heads_which_no_shape_tells():
    config = SynchformerConfig()
    assert (config.visual_heads, config.audio_heads, config.fusion_heads) == (12, 12, 8)


def test_spectrograms_are_those_of_torchaudio():
    wave = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, 40_000).astype(np.float32))
    wave[12_000:25_000] = 0
    wave[25_000:] *= 1e-3
    config = SynchformerConfig()
    spectrogram = MelSpectrogram(16_000, n_fft=1024, win_length=400, hop_length=160, n_mels=128)
    found = mel_segments(wave, config)
    assert len(found) == 6
    for index, segment in enumerate(found):
        piece = wave[5_120 * index : 5_120 * index + 10_240]
        log = F.pad((spectrogram(piece) + 1e-6).log(), (0, 1))
        torch.testing.assert_close(segment[0], (log + 4.2677393) / (2 * 4.5689974), rtol=0, atol=5e-5)


@pytest.mark.parametrize("size", [(480, 640), (426, 240), (225, 224), (131, 97), (224, 224), (300, 301)])
def test_frames_are_resized_and_cut_as_by_torchvision(size):
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8))
    bicubic = v2.InterpolationMode.BICUBIC
    reference = v2.Compose([v2.Resize(224, interpolation=bicubic, antialias=True), v2.CenterCrop(224)])
    assert torch.equal(resize_and_crop(frames, 224), reference(frames.permute(0, 3, 1, 2)))


@pytest.mark.parametrize(
    ("num_frames", "rate", "shown"),
    [
        (6, 50.0, [0, 2, 4]),  # a frame halfway between two instants is moved to the later one
        (4, 10.0, [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]),
        (4, 25.0, [0, 1, 2, 3]),
        (6, 30000 / 1001, [0, 1, 2, 4, 5]),
        (1, 60.0, []),
    ],
)
def test_frames_at_the_new_rate(num_frames, rate, shown):
    assert frame_indices(num_frames, rate, 25).tolist() == shown
