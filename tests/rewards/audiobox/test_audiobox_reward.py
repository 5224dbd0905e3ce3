from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from media import probe, read_clip
from media.audio import read_wav
from rewards.audiobox import AudioBoxReward, windows
from rewards.audiobox.checkpoint import load_network, published_state, save_network
from rewards.audiobox.config import AXES
from tests.golden_files import real_clips
from tests.rewards.audiobox.audiobox_samples import clip_of, silent_clip, sounding_clip, tiny_network


@pytest.fixture(scope="module")
def reward():
    return AudioBoxReward(tiny_network())


@pytest.fixture
def folder(tmp_path):
    """A small checkpoint in the layout of the hub repository."""
    save_network(tiny_network(), tmp_path / "audiobox-aesthetics")
    return tmp_path / "audiobox-aesthetics"


def scores_of(reward, *clips):
    scores = reward.score(list(clips), [])
    return torch.stack([scores[column] for column in reward.columns], dim=1)  # (B, 5)


def test_naming_the_reward_imports_neither_torch_nor_transformers():
    code = "import sys, rewards.audiobox; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_audio_quality_is_the_mean_of_the_four_axes(reward):
    scores = scores_of(reward, sounding_clip(2.0))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores[:, 0], scores[:, 1:].mean(dim=1))


def test_the_axes_are_in_their_published_order_and_units():
    transform = {axis: {"mean": float(index), "std": 1e-6} for index, axis in enumerate(AXES)}
    scores = scores_of(AudioBoxReward(tiny_network(target_transform=transform)), sounding_clip(1.0))
    torch.testing.assert_close(scores, torch.tensor([[1.5, 0.0, 1.0, 2.0, 3.0]]), atol=1e-3, rtol=0)


def test_without_a_configuration_scores_are_in_the_published_units():
    """Means and deviations of docs/upstream/audiobox.md, section 2; the axes' order is that of the columns."""
    scores = tiny_network().to_scores(torch.tensor([[0.0] * 4, [1.0] * 4]))
    means = torch.tensor([5.06865, 5.73633, 3.18591, 6.57505], dtype=torch.float64)
    deviations = torch.tensor([1.93029, 1.75669, 1.86637, 1.51466], dtype=torch.float64)
    torch.testing.assert_close(scores, torch.stack([means, means + deviations]))


def test_a_score_depends_on_its_own_clip_only(reward, monkeypatch):
    clips = [sounding_clip(s, rate, channels, seed=rate) for s, rate, channels in
             ((12.0, 16_000, 1), (0.01, 16_000, 1), (2.0, 44_100, 2), (2.1, 22_050, 1), (1.0, 8_000, 1))]  # fmt: skip
    together = scores_of(reward, *clips)
    alone = torch.cat([scores_of(reward, clip) for clip in clips])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=0)
    monkeypatch.setattr(AudioBoxReward, "MICRO_BATCH", 2)
    torch.testing.assert_close(scores_of(reward, *clips[::-1]).flip(0), alone, atol=2e-5, rtol=0)
    assert alone.std(dim=0).min() > 0.01  # they do differ


def test_the_windows_of_a_long_sound_count_by_how_much_they_hold(reward):
    audio = np.concatenate([sounding_clip(10.0, seed=1).audio, sounding_clip(2.5, seed=2).audio], axis=1)
    whole = scores_of(reward, clip_of(audio, 16_000))
    first, rest = scores_of(reward, clip_of(audio[:, :160_000], 16_000), clip_of(audio[:, 160_000:], 16_000))
    torch.testing.assert_close(whole[0], (first * 10.0 + rest * 2.5) / 12.5, atol=2e-5, rtol=0)


def test_a_clip_without_sound_has_no_score_and_does_not_disturb_the_others(reward):
    clip = sounding_clip(1.0)
    scores = scores_of(reward, silent_clip(), clip)
    assert scores[0].isnan().all()
    torch.testing.assert_close(scores[1], scores_of(reward, clip)[0], atol=1e-6, rtol=0)
    assert scores_of(reward, silent_clip()).isnan().all()


def test_predictions_that_are_no_numbers_are_an_error_and_no_missing_score():
    broken = AudioBoxReward(tiny_network())
    broken.network.proj_layer["PC"][0].weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"not finite for clip 1 of 2.*dtype='float32'"):
        scores_of(broken, silent_clip(), sounding_clip(1.0))


def test_a_silent_track_has_a_score(reward):
    assert scores_of(reward, clip_of(np.zeros((2, 8_000), dtype=np.float32), 16_000)).isfinite().all()


def test_javisbench_only_scales_what_it_should_resample():
    correct, released = AudioBoxReward(tiny_network()), AudioBoxReward(tiny_network(), "javisbench")
    assert released.version != correct.version
    for sample_rate, gain in ((48_000, 0.33), (44_100, 0.99 * 160 / 441)):
        clip = sounding_clip(1.0, sample_rate, channels=2)
        quieter = np.zeros((1, 64_000), dtype=np.float32)  # 4 s at the rate that it is taken to have
        quieter[0, : clip.num_samples] = clip.audio.mean(axis=0) * np.float32(gain)
        expected = scores_of(correct, clip_of(quieter, 16_000))
        torch.testing.assert_close(scores_of(released, clip), expected, atol=1e-5, rtol=0)
        assert (scores_of(correct, clip) - expected).abs().max() > 1e-3


def test_javisbench_takes_the_first_four_seconds():
    released = AudioBoxReward(tiny_network(), "javisbench")
    clip = sounding_clip(12.0)
    start = clip_of(clip.audio[:, :64_000], 16_000)
    torch.testing.assert_close(scores_of(released, clip), scores_of(released, start))
    torch.testing.assert_close(scores_of(released, start), scores_of(AudioBoxReward(tiny_network()), start))


def test_javisbench_averages_the_copies_that_it_makes_of_a_low_rate():
    sound = windows.to_javisbench_mono(np.full((1, 100), 0.5, dtype=np.float32), 8_000)
    assert sound.shape == (64_000,)
    half_a_sample_away = 0.99 * np.sinc(0.99 / 2) * np.cos(0.99 / 2 * np.pi / 12) ** 2
    assert sound[0] == pytest.approx(0.5 * (0.99 + half_a_sample_away) / 2, rel=1e-5)
    assert sound[100:].eq(0).all()


def test_bfloat16_scores_are_near_and_still_tell_clips_apart(folder):
    exact, rounded = (AudioBoxReward.load(str(folder), dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert rounded.network.wavlm.encoder.layers[0].attention.q_proj.weight.dtype == torch.bfloat16
    clips = [sounding_clip(1.0 + seed, seed=seed) for seed in range(3)]
    scores = scores_of(rounded, *clips)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, scores_of(exact, *clips), atol=0.1, rtol=0)


def test_the_network_learns():
    network = tiny_network()
    network.train()
    table = windows.cut_windows([windows.to_mono(sounding_clip(1.0, seed=seed).audio, 16_000) for seed in range(4)])
    target = torch.linspace(-1, 1, 4)[:, None].expand(-1, 4)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(30):
        loss = (network(table.samples, table.num_valid) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("given", ["folder", "parent", "file"])
def test_a_published_folder_is_loaded_from_wherever_it_is_pointed_at(folder, given):
    path = {"folder": folder, "parent": folder.parent, "file": folder / "model.safetensors"}[given]
    clip = sounding_clip(1.0)
    assert scores_of(AudioBoxReward.load(str(path)), clip).equal(scores_of(AudioBoxReward(tiny_network()), clip))


def test_weights_are_written_under_their_published_names(folder):
    names = load_file(folder / "model.safetensors").keys()
    assert {
        "wavlm_model.mask_emb",
        "wavlm_model.encoder.pos_conv.0.weight_g",
        "wavlm_model.encoder.layers.2.self_attn.grep_a",
        "proj_layer.PQ.12.bias",
        "layer_weights.CE",
    } <= names


def torch_checkpoint(network, **extra):
    settings = dataclasses.asdict(network.config)
    transform = settings.pop("target_transform")
    state = {f"model.{name}": tensor for name, tensor in published_state(network).items()}
    return {"state_dict": state, "model_cfg": {**settings, "lr": 1e-4, **extra}, "target_transform": transform}


def test_the_torch_checkpoint_is_loaded_too(tmp_path):
    transform = {axis: {"mean": 5.0, "std": 2.0} for axis in AXES}
    network = tiny_network(target_transform=transform)
    torch.save(torch_checkpoint(network), tmp_path / "checkpoint.pt")
    clip = sounding_clip(1.0)
    assert scores_of(AudioBoxReward.load(str(tmp_path)), clip).equal(scores_of(AudioBoxReward(network), clip))


def test_a_torch_checkpoint_with_objects_is_refused_unopened(tmp_path):
    torch.save(torch_checkpoint(tiny_network(), args=argparse.Namespace(lr=1)), tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"could run code.*Take model\.safetensors and config\.json"):
        load_network(tmp_path / "checkpoint.pt")


def test_weights_without_a_configuration_are_taken_as_published(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"layer_weights\.CE is \(4,\), not \(13,\).* looks like AudioBox-Aesthetics"):
        AudioBoxReward.load(str(folder))


def test_another_models_checkpoint_is_named(folder):
    save_file({"vfeat_extractor.patch_embed.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"153 missing .*looks like Synchformer"):
        AudioBoxReward.load(str(folder))


def test_an_incomplete_checkpoint_is_refused(folder):
    state = load_file(folder / "model.safetensors")
    del state["proj_layer.PC.4.bias"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 missing \(proj_layer\.PC\.4\.bias\)"):
        AudioBoxReward.load(str(folder))


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds neither model\.safetensors nor checkpoint\.pt"):
        AudioBoxReward.load(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proj_num_layers": 5}, r"config\.json has an unknown key 'proj_num_layers': did you mean 'proj_num_layer'"),
        (
            {"wavlm": {"hidden_sizes": 32}},
            r"config\.json: wavlm has an unknown key 'hidden_sizes': did you mean 'hidden_size'",
        ),
        (
            {"wavlm": {"hidden_size": 100}},
            r"config\.json: wavlm: hidden_size 100 does not divide into num_attention_heads 12",
        ),
        ({"nth_layer": 13}, r"encoder of 3 layers has 4 results"),
        ({"proj_act_fn": "relu"}, r"proj_act_fn is 'relu'"),
        ({"target_transform": {}}, r"axis CE: each of CE, CU, PC, PQ needs numbers"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=message):
        AudioBoxReward.load(str(folder))


@pytest.mark.parametrize(("setting", "value"), [("protocol", "javis"), ("dtype", "int64"), ("dtype", "half_float")])
def test_an_unknown_protocol_or_dtype_is_refused(folder, setting, value):
    with pytest.raises(ValueError, match=rf"{setting} is '{value}'"):
        AudioBoxReward.load(str(folder), **{setting: value})


def test_real_files_are_scored(reward):
    sounds = [clip_of(*read_wav(path)) for path in real_clips("*.wav")]
    longest = read_clip(max(real_clips(), key=lambda path: probe(path).audio_duration_s))  # above 10 s: two windows
    assert len(sounds) == 2
    assert longest.audio.shape[1] > 10 * longest.sample_rate
    scores = scores_of(reward, longest, *sounds)
    assert scores.isfinite().all()
    assert scores[:, 1:].std(dim=0).min() > 0.01
