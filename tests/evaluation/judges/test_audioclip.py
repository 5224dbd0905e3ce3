"""AudioCLIP's audio head. Its published weights are 0.5 GB and not at hand: the network is checked against numbers of
the public implementation (AndreyGuzhov/AudioCLIP at 45327aa, MIT licence, evaluation mode) with procedural weights."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision

from evaluation.judges.audioclip import AudioClipJudge
from evaluation.judges.audioclip.config import AudioClipConfig
from evaluation.judges.audioclip.front_end import SplineFilters, blackman_harris, cut_frames, decibels, to_unit_range
from evaluation.judges.audioclip.loading import load_network, save_network
from evaluation.judges.audioclip.network import AudioHead
from media import AVClip, read_clip, write_clip
from media.clip import empty_audio
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed
from tests.evaluation.judges.reduced_contrastive import (
    fill_audio_head,
    golden_sounds,
    prompt,
    reduced_audio_head,
    sounding_clip,
    write_audioclip,
)
from tests.golden_files import ROOT

GOLDEN = ROOT / "tests" / "golden" / "audioclip_head.npz"
GOLDEN_SEED, GOLDEN_STEP = 7, 8  # every eighth of the 1024 values is kept


@pytest.fixture(scope="module")
def full_size():
    return fill_audio_head(AudioHead(AudioClipConfig()), GOLDEN_SEED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_audioclip(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def correct(folder):
    return AudioClipJudge.load(str(folder))


@pytest.fixture(scope="module")
def released(folder):
    return AudioClipJudge.load(str(folder), protocol="javisbench")


def with_sound(audio, sample_rate=16_000):
    return AVClip(sounding_clip().video, 8.0, np.ascontiguousarray(audio, dtype=np.float32), sample_rate)


def features(judge, *clips):
    return judge.measure(list(clips), [prompt()] * len(clips))["audioclip"]


def test_naming_the_judge_imports_no_torch():
    code = "import sys, evaluation.judges.audioclip; sys.exit(bool({'torch', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", golden_sounds())
def test_embeddings_are_those_of_the_public_implementation(full_size, name):
    with np.load(GOLDEN) as golden:
        expected = torch.from_numpy(golden[name])
    embedding = full_size(golden_sounds()[name][None])[0, ::GOLDEN_STEP]
    torch.testing.assert_close(embedding, expected, rtol=0, atol=5e-4 * expected.std().item())


def test_names_and_shapes_are_the_published_ones(full_size):
    shapes = {name: tuple(tensor.shape) for name, tensor in full_size.state_dict().items()}
    backbone = torchvision.models.resnext50_32x4d().state_dict()
    trunk = {name: tuple(tensor.shape) for name, tensor in backbone.items() if not name.startswith("fc.")}
    added = {name: shape for name, shape in shapes.items() if name not in trunk}
    assert {name: shapes[name] for name in trunk} == trunk
    assert {name for name in added if not name.startswith("att")} == {
        "window", "fbsp.m", "fbsp.fb", "fbsp.fc", "fc.weight", "fc.bias",
    }  # fmt: skip
    assert [added[f"att{index}.conv_depth.weight"] for index in range(1, 6)] == [
        (64, 1, 3, 1), (256, 1, 1, 5), (512, 1, 3, 1), (1024, 1, 1, 5), (2048, 1, 3, 5),
    ]  # fmt: skip
    assert sum(parameter.numel() for parameter in full_size.parameters()) == 32_104_771


@pytest.mark.parametrize(
    ("num_samples", "num_frames"), [(1, 1), (1654, 1), (1655, 2), (2215, 2), (2216, 3), (176_400, 313)]
)
def test_frames_cover_the_sound(num_samples, num_frames):
    sound = torch.arange(1.0, num_samples + 1)[None]
    frames = cut_frames(sound, torch.ones(1654))
    assert frames.shape == (1, num_frames, 2048)
    assert set(frames.unique().tolist()) - {0.0} == set(sound[0].tolist())


def test_a_sound_lies_in_the_middle_of_its_frames():
    frame = cut_frames(torch.ones(1, 1000), torch.ones(1654))[0, 0]
    assert frame.nonzero()[:, 0].tolist() == list(range(197 + 327, 197 + 327 + 1000))


def test_the_first_filters_are_a_fourier_transform():
    times = torch.arange(44_100) / 44_100
    for frequency in (500, 5000, 20_000):
        tone = (2 * torch.pi * frequency * times).sin()[None]
        with torch.no_grad():
            level = decibels(cut_frames(tone, blackman_harris()), SplineFilters())[0]  # (3, 341, T)
        band, row = divmod(int(level.mean(dim=-1).argmax()), 341)
        assert band * 341 + row == pytest.approx(frequency * 2048 / 44_100, abs=1)


def test_a_louder_sound_is_higher_by_its_gain_in_decibels():
    sound = torch.from_numpy(sounding_clip().audio) * 0.5
    with torch.no_grad():
        quiet, loud = (decibels(cut_frames(gain * sound, blackman_harris()), SplineFilters()) for gain in (1.0, 10.0))
    torch.testing.assert_close((loud - quiet).median(), torch.tensor(20.0), atol=1e-3, rtol=0)


def test_samples_in_16_bit_units_become_the_unit_range():
    ends = to_unit_range(torch.tensor([-32768.0, 0.0, 32767.0]))
    torch.testing.assert_close(ends, torch.tensor([-1.0, 1.5e-5, 1.0]), atol=1e-6, rtol=0)


def test_the_published_file_is_read_without_its_other_towers(folder, correct):
    state = reduced_audio_head().state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in correct.network.state_dict().items())
    assert AudioClipJudge.load(str(folder / "AudioCLIP-Full-Training.pt")).version == "1"


def test_a_saved_network_is_read_again(tmp_path):
    network = reduced_audio_head(3)
    save_network(network, tmp_path)
    again = load_network(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(again.fbsp.m, network.fbsp.m)  # the front end stays in float32
    assert again.fc.weight.dtype == torch.bfloat16
    whole, rounded = (features(AudioClipJudge(one), sounding_clip())[0] for one in (network, again))
    assert torch.nn.functional.cosine_similarity(whole, rounded, dim=0) > 0.99


def test_features_are_of_each_sound_alone_and_not_normalised(correct):
    clips = [
        sounding_clip(1.0, seed=1),
        sounding_clip(0.05, 44_100, 2),
        AVClip(sounding_clip().video, 8.0, empty_audio(), 0),
    ]
    together = features(correct, *clips)
    assert together.shape == (3, 1024)
    assert together.dtype == torch.float32
    assert together[2].isnan().all()
    assert torch.equal(together[:2], torch.cat([features(correct, clip) for clip in clips[:2]]))
    assert (together[:2].norm(dim=1) - 1).abs().min() > 1e-3
    assert features(correct).shape == (0, 1024)


def test_silence_and_very_short_sounds_have_features(correct, released):
    for judge in (correct, released):
        assert features(judge, with_sound(np.zeros((1, 16_000))), with_sound(np.ones((1, 1)))).isfinite().all()


def test_the_whole_sound_is_heard_at_44_khz_and_in_16_bit_units(correct):
    clip = sounding_clip(5.0, 44_100)
    samples = correct.samples(clip)
    assert samples.shape == (5 * 44_100,)
    torch.testing.assert_close(samples, torch.from_numpy(clip.audio[0]) * 32768)
    assert correct.samples(sounding_clip(0.5, 16_000)).shape == (22_050,)


def test_javisbench_hears_four_seconds_at_16_khz_as_they_are(released):
    clip = sounding_clip(5.0, 16_000)
    assert torch.equal(released.samples(clip), torch.from_numpy(clip.audio[0, :64_000]))
    changed = clip.audio.copy()
    changed[:, 64_000:] = 0
    assert torch.equal(features(released, with_sound(changed)), features(released, clip))
    short = released.samples(sounding_clip(1.0, 16_000))
    assert short.shape == (64_000,)
    assert short[16_000:].count_nonzero() == 0
    assert released.version == "1+javisbench"


def test_a_written_clip_is_heard_from_its_wav(correct, released, tmp_path):
    clip = render_clip(scene_from_seed(3))
    write_clip(clip, tmp_path / "sample.mp4")
    read = read_clip(tmp_path / "sample.mp4", audio_path=tmp_path / "sample.wav")
    for judge in (correct, released):
        assert torch.equal(features(judge, read), features(judge, clip))


def test_weights_that_are_absent_or_not_whole_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs weights"):
        AudioClipJudge.load()
    with pytest.raises(ValueError, match="holds no weights"):
        AudioClipJudge.load(str(tmp_path))
    file = write_audioclip(tmp_path / "part") / "AudioCLIP-Full-Training.pt"
    state = torch.load(file)
    del state["audio.att5.bn.bias"]
    torch.save(state, file)
    with pytest.raises(ValueError, match=r"1 missing \(att5.bn.bias\)"):
        AudioClipJudge.load(str(file))
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith("audio.")}, file)
    with pytest.raises(ValueError, match=r"no AudioCLIP with its audio head\. It looks like no known kind"):
        AudioClipJudge.load(str(file))
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="was not opened"):
        AudioClipJudge.load(str(file))


@pytest.mark.parametrize("sizes", [{"blocks": (1, 1)}, {"groups": 0}, {"stem_width": 8, "width_per_group": 4}])
def test_sizes_that_make_no_network_are_refused(sizes):
    with pytest.raises(ValueError, match="group"):
        AudioClipConfig(**sizes)
