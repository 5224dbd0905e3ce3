from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

from evaluation.judges.clap_score import ClapJudge, cover
from evaluation.judges.sound import mono_sound
from media import AVClip, read_clip, write_clip
from media.clip import empty_audio
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed
from tests.evaluation.judges.reduced_contrastive import TEXTS, prompt, sounding_clip, write_clap_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clap_model(tmp_path_factory.mktemp("weights") / "clap-htsat-unfused")


@pytest.fixture(scope="module")
def clap_judge(folder):
    return ClapJudge.load(str(folder.parent))


def measure(judge, clip, *texts):
    values = judge.measure([clip], [prompt(*texts)])
    return values["clap_score"][0], values["clap_audio"][0]


def with_sound(audio, sample_rate=48_000):
    return AVClip(sounding_clip().video, 8.0, np.ascontiguousarray(audio, dtype=np.float32), sample_rate)


def test_naming_the_judge_imports_no_torch():
    code = "import sys, evaluation.judges.clap_score; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("seconds", [0.01, 0.7, 2.0])
def test_the_score_is_the_cosine_that_transformers_computes(folder, clap_judge, seconds):
    clip = sounding_clip(seconds, sample_rate=48_000)
    front_end = ClapFeatureExtractor.from_pretrained(folder)
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS[0], return_tensors="pt")
    features = front_end(clip.audio[0], sampling_rate=48_000, return_tensors="pt")
    with torch.inference_mode():
        outputs = ClapModel.from_pretrained(folder).eval()(**inputs, **features)
    score, sound = measure(clap_judge, clip)
    torch.testing.assert_close(sound, outputs.audio_embeds[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(score, outputs.audio_embeds[0] @ outputs.text_embeds[0], atol=1e-6, rtol=0)


def test_outputs_tell_the_width_of_the_loaded_model(clap_judge):
    assert ClapJudge.outputs == {"clap_score": None, "clap_audio": 512}
    assert clap_judge.outputs == {"clap_score": None, "clap_audio": 24}
    score, sound = measure(clap_judge, sounding_clip())
    assert score.dtype == sound.dtype == torch.float32
    assert sound.shape == (24,)
    assert sound.norm().item() == pytest.approx(1, abs=1e-6)


def test_the_text_of_the_sound_comes_first(clap_judge):
    clip = sounding_clip()
    assert measure(clap_judge, clip, TEXTS[0], TEXTS[2])[0] == measure(clap_judge, clip, TEXTS[2])[0]
    assert measure(clap_judge, clip, TEXTS[0], TEXTS[2])[0] != measure(clap_judge, clip, TEXTS[0])[0]


def test_a_clip_without_sound_has_neither_output_and_others_are_as_alone(clap_judge):
    clips = [sounding_clip(seed=1), AVClip(sounding_clip().video, 8.0, empty_audio(), 0), sounding_clip(3.1, seed=2)]
    values = clap_judge.measure(clips, [prompt(text) for text in TEXTS])
    assert values["clap_score"].isnan().tolist() == [False, True, False]
    assert values["clap_audio"][1].isnan().all()
    for index in (0, 2):
        score, sound = measure(clap_judge, clips[index], TEXTS[index])
        assert values["clap_score"][index] == score
        assert torch.equal(values["clap_audio"][index], sound)


def test_channels_are_averaged_and_the_rate_is_brought_to_48_khz(clap_judge):
    stereo = sounding_clip(1.0, 16_000, channels=2)
    resampled = mono_sound(stereo, 48_000).clamp(-1, 1)
    assert resampled.shape == (48_000,)
    expected = measure(clap_judge, with_sound(resampled[None].numpy()))[1]
    torch.testing.assert_close(measure(clap_judge, stereo)[1], expected, atol=1e-5, rtol=0)


def test_resampling_keeps_a_tone():
    times = np.arange(16_000) / 16_000
    tone = mono_sound(with_sound(0.5 * np.sin(2 * np.pi * 1000 * times)[None], 16_000), 48_000).numpy()
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(48_000) / 48_000)
    np.testing.assert_allclose(tone[1000:-1000], expected[1000:-1000], atol=1e-3)


def test_a_long_sound_is_heard_to_its_end_and_always_alike(clap_judge):
    """The release takes a random piece of one that is longer than the network's 10 s (here 2 s)."""
    audio = sounding_clip(5.0, 48_000).audio.copy()
    first = measure(clap_judge, with_sound(audio))[1]
    assert torch.equal(first, measure(clap_judge, with_sound(audio))[1])
    for place in (0, 120_000, 239_000):
        other = audio.copy()
        other[:, place : place + 1000] = 0.9
        assert not torch.equal(first, measure(clap_judge, with_sound(other))[1])


@pytest.mark.parametrize(("num_samples", "starts"), [(3, [0]), (10, [0]), (11, [0, 1]), (30, [0, 10, 20])])
def test_windows_cover_a_sound(num_samples, starts):
    windows = cover(np.arange(num_samples), 10)
    assert [window[0] for window in windows] == starts
    assert {len(window) for window in windows} == {min(10, num_samples)}
    assert set(np.concatenate(windows)) == set(range(num_samples))


def test_silence_and_long_texts_have_scores(clap_judge):
    score, _ = measure(clap_judge, with_sound(np.zeros((1, 4800))), "rain and thunder " * 40)
    assert -1 <= score <= 1


def test_a_written_clip_is_heard_from_its_wav(clap_judge, tmp_path):
    clip = render_clip(scene_from_seed(3))
    write_clip(clip, tmp_path / "sample.mp4")
    read = read_clip(tmp_path / "sample.mp4", audio_path=tmp_path / "sample.wav")
    assert torch.equal(measure(clap_judge, read)[1], measure(clap_judge, clip)[1])


def test_weights_that_are_absent_or_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match="needs weights"):
        ClapJudge.load()
    with pytest.raises(ValueError, match=r"lacks config.json, .*laion/clap-htsat-unfused"):
        ClapJudge.load(str(tmp_path))
    fused = write_clap_model(tmp_path / "fused", enable_fusion=True, fusion_type="aff_2d")
    with pytest.raises(ValueError, match="without fusion"):
        ClapJudge.load(str(fused))
