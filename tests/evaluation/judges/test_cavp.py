"""CAVP: the published layout, what it sees and hears, and its score. There is no golden file: the facts are read."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evaluation.judges.cavp import CavpConfig, CavpJudge
from evaluation.judges.cavp.front_end import log_mel, pictures, shown_frames, waveform
from evaluation.judges.cavp.loading import save_network
from evaluation.judges.cavp.network import Cavp
from media import AVClip
from rewards import Prompt
from tests.rewards.imagebind.small_imagebind import noise_clip

SMALL = CavpConfig(embed_dim=16, image_size=32, video_width=4, video_blocks=(1, 1, 1, 1), audio_width=4)
PROMPT = Prompt("p", "a ball")


def small_network(seed: int = 0) -> Cavp:
    """Random weights, with statistics that let something through."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Cavp(SMALL)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.05, 0.2)
    return network


@pytest.fixture(scope="module")
def judge():
    return CavpJudge(small_network())


def score(judge: CavpJudge, *clips: AVClip) -> list[float]:
    return judge.measure([*clips], [PROMPT] * len(clips))["cavp_score"].tolist()


def test_the_full_size_is_as_large_as_published():
    with torch.device("meta"):
        network = Cavp(CavpConfig())
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes["video_encoder.conv1.conv.weight"] == (64, 3, 1, 7, 7)
    assert shapes["video_encoder.layer1.0.downsample.bn.running_var"] == (256,)
    assert shapes["video_encoder.layer2.3.conv1.conv.weight"] == (128, 512, 1, 1, 1)
    assert shapes["video_encoder.layer3.5.conv1.conv.weight"] == (256, 1024, 3, 1, 1)
    assert shapes["video_encoder.layer4.2.conv2.conv.weight"] == (512, 512, 1, 3, 3)
    assert shapes["video_project_head.weight"] == (512, 2048)
    assert shapes["spec_encoder.conv_block6.conv2.weight"] == (2048, 2048, 3, 3)
    assert shapes["spec_encoder.bn.weight"] == (128,)
    assert shapes["logit_scale"] == ()
    assert network.encode_frames(torch.empty(1, 3, 16, 224, 224, device="meta")).shape == (1, 16, 512)
    assert network.encode_sound(torch.empty(1, 128, 256, device="meta")).shape == (1, 16, 512)
    # With its head of 400 classes, a SlowOnly R50 has 32.45 M parameters.
    video = sum(parameter.numel() for parameter in network.video_encoder.parameters())
    assert video + 2049 * 400 == pytest.approx(32.45e6, abs=5e3)
    # PANNs give 80,753,615 for CNN14: with a head of 527 classes and a normalisation of 64 bands.
    sound = sum(p.numel() for name, p in network.spec_encoder.named_parameters() if name.startswith(("conv", "fc1")))
    assert sound + 2049 * 527 + 2 * 64 == 80_753_615


@pytest.mark.parametrize(
    ("num_frames", "fps", "seconds"), [(65, 16.0, 4), (96, 24000 / 1001, 4), (31, 30.0, 1), (5, 1.0, 5)]
)
def test_there_are_four_frames_and_four_sounds_a_second(judge, num_frames, fps, seconds):
    indices = shown_frames(num_frames, fps)
    assert len(indices) == 4 * seconds
    assert indices.max() / fps < seconds
    assert judge.frames(num_frames, fps) == set(indices.tolist())
    clip = noise_clip(num_frames / fps, fps=fps)
    assert [len(part) for part in judge.embeddings(clip)] == [4 * seconds] * 2


def test_the_spectrogram_is_librosas():
    librosa = pytest.importorskip("librosa")
    wave = waveform(noise_clip(2.5, sample_rate=16_000, channels=2), 2)
    assert len(wave) == 31_999
    magnitudes = np.abs(librosa.stft(wave.numpy(), n_fft=1024, hop_length=250))
    mel = librosa.filters.mel(sr=16_000, n_fft=1024, fmin=125, fmax=7600, n_mels=128) @ magnitudes
    expected = np.clip((20 * np.log10(np.maximum(mel, 1e-5)) + 80) / 100, 0, 1)
    assert log_mel(wave).shape == (128, 128)
    np.testing.assert_allclose(log_mel(wave).numpy(), expected, rtol=0, atol=1e-5)
    assert not log_mel(torch.zeros(15_999)).any()


def test_pictures_are_squeezed_to_a_square():
    clip = noise_clip(1.0, fps=4.0, height=20, width=60)
    seen = pictures(clip.video, np.array([0, 2, 2]), 32)
    assert seen.shape == (3, 3, 32, 32)
    assert seen[:, 1].equal(seen[:, 2])
    assert 0 <= seen.min() < seen.max() <= 1
    assert seen[0, 0].mean().item() == pytest.approx(clip.video[0, ..., 0].mean() / 255, abs=0.02)


def test_a_frame_sees_its_neighbours_within_its_block(judge):
    clip = noise_clip(12.0, fps=4.0)
    changed = clip.video.copy()
    changed[[20, 39]] = 255 - changed[[20, 39]]
    before, after = (judge.embeddings(AVClip(video, 4.0, clip.audio, 16_000))[0] for video in (clip.video, changed))
    different = (before - after).abs().amax(dim=1) > 1e-6
    # One convolution over time in each of the last two stages; 40 frames go through the network at once.
    assert different.nonzero().flatten().tolist() == [18, 19, 20, 21, 22, 37, 38, 39]


def test_a_score_is_the_mean_cosine_and_does_not_depend_on_the_batch(judge):
    clips = [noise_clip(2.0, seed=1), noise_clip(3.2, fps=16.0, sample_rate=44_100, channels=2, seed=2)]
    together = score(judge, *clips)
    for clip, value in zip(clips, together, strict=True):
        frames, steps = judge.embeddings(clip)
        assert value == pytest.approx(torch.cosine_similarity(frames, steps).mean().item(), abs=1e-6)
        assert score(judge, clip) == pytest.approx([value], abs=1e-6)
    assert abs(together[0] - together[1]) > 1e-4


def test_no_sound_is_undefined_and_a_short_clip_an_error(judge):
    assert math.isnan(score(judge, noise_clip(2.0, sample_rate=0))[0])
    assert judge.frames(10, 12.0) == set()
    with pytest.raises(ValueError, match=r"the clip has 0\.83 s"):
        score(judge, noise_clip(0.83))


def test_a_sound_shorter_than_the_picture_ends_in_silence(judge):
    clip = noise_clip(3.0)
    short = AVClip(clip.video, clip.fps, clip.audio[:, :40_000], 16_000)
    silent = clip.audio.copy()
    silent[:, 40_000:] = 0
    assert score(judge, short) == score(judge, AVClip(clip.video, clip.fps, silent, 16_000))


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_published_checkpoint_is_read(judge, tmp_path, wrapped):
    """As a training saves it: `state_dict` with `module.` before each name, beside an optimizer's state."""
    file = tmp_path / "Diff-Foley/diff_foley_ckpt/cavp_epoch66.ckpt"
    save_network(judge.network, file.parent)
    folder = CavpJudge.load(str(file.parent))
    (file.parent / "model.safetensors").unlink()
    state = {f"module.{name}" if wrapped else name: t for name, t in judge.network.state_dict().items()}
    state["module.other_head.weight"] = torch.zeros(3)
    torch.save(
        {"epoch": 66, "state_dict": state, "optimizer": {"lr": 0.1}} if wrapped else state,
        file,
    )
    clip = noise_clip(1.0)
    for path in (tmp_path, file):
        assert score(CavpJudge.load(str(path)), clip) == score(judge, clip) == score(folder, clip)


def test_other_weights_are_refused(judge, tmp_path):
    save_network(judge.network, tmp_path)
    (tmp_path / "config.json").write_text('{"video_blocks": [1, 2, 1, 1]}')
    with pytest.raises(ValueError, match=r"missing.*looks like CAVP"):
        CavpJudge.load(str(tmp_path))
    for name in ("foreign.ckpt", "foreign.pt"):
        torch.save({"vfeat_extractor.norm.weight": torch.zeros(2)}, tmp_path / name)
        with pytest.raises(ValueError, match=r"missing.*looks like Synchformer"):
            CavpJudge.load(str(tmp_path / name))
    with pytest.raises(ValueError, match=r"cavp_epoch66\.ckpt"):
        CavpJudge.load()
