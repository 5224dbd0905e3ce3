"""ImageBind in a clone without the golden files: front ends against public packages, and numbers of a small network.

The numbers were noted when the code gave all the golden ones. A change of an eps, an order or a sign moves them.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchaudio.compliance.kaldi import fbank
from torchvision import transforms

from rewards.imagebind.audio_front_end import audio_views
from rewards.imagebind.config import MODALITIES, ImageBindConfig
from rewards.imagebind.network import ImageBind
from rewards.imagebind.video_front_end import clip_frames, resize_frame, resize_frames, three_crops
from tests.rewards.imagebind.small_imagebind import small_config
from tests.rewards.procedural import fill, procedural_tensor

VOCABULARY_SIZE = 600
NUMBERS = {
    "vision": [0.314168, 0.173835, 0.085512, -0.109619],
    "text": [-0.109791, 0.003479, 0.258776, 0.17797],
    "audio": [-0.139245, 0.139214, -0.128091, 0.109437],
    "depth": [-0.097776, 0.13391, -0.030601, -0.099267],
    "thermal": [-0.089306, 0.142752, 0.09089, -0.219382],
    "imu": [-0.122157, -0.068748, 0.106975, 0.021937],
}


@pytest.fixture(scope="module")
def network():
    return fill(ImageBind(small_config(VOCABULARY_SIZE)), 5).eval()


def noise(name, *shape):
    return procedural_tensor(f"{name}.bias", (int(np.prod(shape)),), 0).view(shape) / 0.02  # of deviation 1


@pytest.mark.parametrize("modality", MODALITIES)
@torch.inference_mode()
def test_embeddings_of_a_small_network(network, modality):
    inputs = {
        "vision": noise("vision", 1, 3, 2, 32, 32) / 2,
        "text": torch.tensor([[598, 3, 77, 140, 599, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]),
        "audio": noise("audio", 1, 1, 64, 204) / 100,  # so quiet that the eps of the stem counts
        "depth": noise("depth", 1, 1, 32, 32) / 100,
        "thermal": noise("thermal", 1, 1, 32, 32) / 100,
        "imu": noise("imu", 1, 6, 2000) / 100,
    }
    embedding = F.normalize(network(modality, inputs[modality])[0], dim=0)
    torch.testing.assert_close(embedding[:4], torch.tensor(NUMBERS[modality]), rtol=0, atol=1e-5)


def test_heads_which_no_shape_tells():
    config = ImageBindConfig()
    heads = {name: getattr(config, name).heads for name in MODALITIES}
    assert heads == {"vision": 16, "text": 16, "audio": 12, "depth": 8, "thermal": 12, "imu": 8}


@pytest.mark.parametrize(
    ("num_samples", "channels"), [(400, 1), (32_000, 2), (32_001, 1), (64_000, 2), (81_600, 1), (165_000, 2)]
)
def test_mel_clips_are_kaldis(num_samples, channels):
    """Under "javisbench" with the mean taken off in place, as written in docs/upstream/imagebind.md, section 6."""
    rng = np.random.default_rng(num_samples)
    wave = torch.from_numpy(rng.normal(0.05, 0.1, (channels, num_samples)).clip(-1, 1).astype(np.float32))
    alone, found = (audio_views(wave.clone(), 128, 204, protocol) for protocol in ("correct", "javisbench"))
    latest = Fraction(max(num_samples / 16_000 - 2, 0))
    starts = [latest * index / 2 for index in range(3)]
    ranges = [slice(int(start * 16_000), int((start + 2) * 16_000)) for start in starts]
    fresh = torch.stack([_kaldi(wave[:, span] - wave[:, span].mean()) for span in ranges])
    disturbed = torch.stack([_kaldi(wave[:, span].sub_(wave[:, span].mean())) for span in ranges])
    torch.testing.assert_close(found.inputs, disturbed, rtol=0, atol=1e-4)
    heard = fresh[: len(alone.inputs)]
    torch.testing.assert_close(alone.inputs, heard, rtol=0, atol=1e-4)


def _kaldi(clip):
    settings = {"window_type": "hanning", "num_mel_bins": 128, "dither": 0.0, "frame_length": 25, "frame_shift": 10}
    bands = fbank(clip, htk_compat=True, sample_frequency=16_000, use_energy=False, **settings).T
    return (F.pad(bands, (0, 204 - bands.shape[1]))[None] + 4.268) / 9.138


@pytest.mark.parametrize("size", [(480, 640), (426, 240), (225, 224), (131, 97), (224, 224), (300, 301)])
def test_single_frames_are_resized_and_cut_as_by_torchvision(size):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    bicubic = transforms.InterpolationMode.BICUBIC
    reference = transforms.Compose([transforms.Resize(224, interpolation=bicubic), transforms.CenterCrop(224)])
    assert np.array_equal(resize_frame(frame, 224), np.asarray(reference(Image.fromarray(frame))))


def test_frames_of_clips_are_resized_without_antialiasing():
    frames = torch.zeros(1, 66, 69, 3, dtype=torch.uint8)
    frames[:, :, 1::3] = 255  # the columns that remain at a third of the size
    mean, deviation = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    white = ((1 - mean) / deviation).view(1, 3, 1, 1).expand(1, 3, 22, 23)
    torch.testing.assert_close(resize_frames(frames, 22), white, rtol=0, atol=1e-5)


@pytest.mark.parametrize("axis", [-1, -2])
def test_crops_lie_at_the_start_in_the_centre_and_at_the_end(axis):
    shape = (1, 2, 3, 20, 25) if axis == -1 else (1, 2, 3, 25, 20)
    places = torch.arange(25.0).view((-1, 1) if axis == -2 else (25,)).expand(shape)
    assert three_crops(places, 20)[:, 0, 0, 0, 0].tolist() == [0, 3, 5]  # the centre is rounded up


@pytest.mark.parametrize(
    ("num_frames", "fps", "pairs"),
    [
        (96, 24.0, [(0, 47), (12, 59), (24, 71), (36, 83), (48, 95)]),
        (90, 30.0, [(0, 59), (8, 67), (15, 74), (23, 82), (30, 89)]),
        (33, 16.0, [(0, 31), (1, 32), (1, 32), (1, 32), (1, 32)]),
        (20, 24.0, [(0, 19)] * 5),
    ],
)
def test_first_and_last_frames_of_clips(num_frames, fps, pairs):
    assert clip_frames(num_frames, fps) == pairs
