"""AVHScore and JavisScore: the published numbers, and what is better by default."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evaluation.judges.javis_score import JavisScoreConfig, Window, avh_score, javis_score, sync_scores, sync_windows
from tests.golden_files import Golden, golden_path
from tests.rewards.imagebind.small_imagebind import noise_clip, small_encoder

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden():
    return Golden("synchformer_imagebind/ib_scores.safetensors")


def case_of(golden, case):
    num_frames, fps, num_samples, lowest, window_s, overlap_s = golden[f"{case}.params"].tolist()
    config = JavisScoreConfig(window_s=window_s, overlap_s=overlap_s, lowest=lowest)
    return config, sync_windows(int(num_frames), fps, int(num_samples), config, "javisbench")


def test_scores_and_windows_are_the_published_ones(golden):
    cases = sorted({name.split(".")[0] for name in golden.names if name.startswith("case")})
    assert cases
    for case in cases:
        config, windows = case_of(golden, case)
        assert [list(window.frames) for window in windows] == golden[f"{case}.video_windows"].tolist(), case
        assert [list(window.samples) for window in windows] == golden[f"{case}.audio_windows"].tolist(), case
        frames = golden[f"{case}.frame_emb"]
        avh = avh_score(frames, golden[f"{case}.audio_emb"])
        javis = javis_score(frames, golden[f"{case}.audio_window_emb"], windows, config.lowest, "javisbench")
        found, expected = torch.stack([avh, javis]), torch.cat([golden[f"{case}.avh"], golden[f"{case}.javis"]])
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE, equal_nan=True)


def test_scores_of_the_benchmarks_own_setting_are_the_published_ones():
    config = JavisScoreConfig()
    arrays = np.load(golden_path("media/window_scores.npz"))
    for index, case in enumerate(json.loads(golden_path("media/window_scores.json").read_text(encoding="utf-8"))):
        windows = sync_windows(case["frames"], case["fps"], case["audio_samples"], config, "javisbench")
        assert [list(window.frames) for window in windows] == case["video_windows"]
        assert [list(window.samples) for window in windows] == case["audio_windows"]
        frames, heard, whole = (
            F.normalize(torch.from_numpy(arrays[f"case{index}.{name}_embed"]), dim=-1)
            for name in ("frame", "window_audio", "clip_audio")
        )
        assert avh_score(frames, whole).item() == pytest.approx(case["avh_score"], abs=TOLERANCE)
        javis = javis_score(frames, heard, windows, config.lowest, "javisbench")
        assert javis.item() == pytest.approx(case["javis_score"], abs=TOLERANCE)


def test_similarities_are_the_published_ones(golden):
    video, audio = golden["sim.video"], golden["sim.audio"]
    pairs = {"tv": (golden["sim.text"], video), "ta": (golden["sim.audio_text"], audio), "av": (audio, video)}
    for name, pair in pairs.items():
        torch.testing.assert_close(F.cosine_similarity(*pair, eps=1e-6), golden[f"sim.{name}"], rtol=0, atol=TOLERANCE)


def test_windows_of_one_or_two_frames_have_a_score_by_default():
    config = JavisScoreConfig(window_s=0.5, overlap_s=0.0)
    windows = sync_windows(20, 4.0, 80_000, config, "correct")
    frames, heard = torch.randn(20, 8), torch.randn(len(windows), 8)
    lowest = [F.cosine_similarity(frames[slice(*w.frames)], h[None]).min() for w, h in zip(windows, heard, strict=True)]
    assert javis_score(frames, heard, windows, 0.4).item() == pytest.approx(torch.stack(lowest).mean().item(), abs=1e-6)
    assert math.isnan(javis_score(frames, heard, windows, 0.4, "javisbench"))


def test_by_default_picture_and_sound_of_a_window_begin_together():
    config = JavisScoreConfig()
    for num_frames, fps, num_samples in ((100, 25.0, 64_000), (120, 29.97, 64_064), (49, 24.0, 40_000)):
        for frames, samples in sync_windows(num_frames, fps, num_samples, config):
            assert abs(frames[0] / fps - samples[0] / 16_000) <= 0.501 / fps
            assert frames[1] - frames[0] == round(2 * fps)
            assert samples[1] - samples[0] == 32_000
    drifted = sync_windows(100, 25.0, 64_000, config, "javisbench")[3]
    assert drifted.frames[0] / 25 - drifted.samples[0] / 16_000 == pytest.approx(0.06)


def test_without_rounding_both_protocols_have_the_same_windows():
    config = JavisScoreConfig()
    assert sync_windows(96, 24.0, 64_000, config) == sync_windows(96, 24.0, 64_000, config, "javisbench")
    assert sync_windows(40, 24.0, 20_000, config) == [Window((0, 40), (0, 20_000))]


@pytest.mark.parametrize("protocol", ["correct", "javisbench"])
def test_scores_of_a_clip_are_those_of_its_parts(protocol):
    encoder = small_encoder(protocol)
    clip = noise_clip(3.0, fps=8.0, sample_rate=22_050, channels=2)
    config = JavisScoreConfig(window_s=1.0, overlap_s=0.5)
    found = sync_scores(encoder, clip, config)
    frames = encoder.frames(clip)
    windows = sync_windows(24, 8.0, 48_000, config, protocol)
    assert len(windows) == 5
    assert found.avh_score == pytest.approx(avh_score(frames, encoder.sounds([clip])).item(), abs=1e-6)
    heard = encoder.sound_windows(clip, [window.samples for window in windows])
    assert found.javis_score == pytest.approx(javis_score(frames, heard, windows, 0.4, protocol).item(), abs=1e-6)
    assert found.javis_score < found.avh_score  # the frames that fit worst


def test_a_clip_without_sound_has_no_scores():
    assert all(math.isnan(score) for score in sync_scores(small_encoder(), noise_clip(1.0, sample_rate=0)))


@pytest.mark.parametrize("settings", [{"overlap_s": 2.0}, {"window_s": 0.0}, {"lowest": 0.0}])
def test_settings_that_make_no_windows_are_refused(settings):
    with pytest.raises(ValueError, match=r"give (0 <= overlap_s < window_s|a share)"):
        JavisScoreConfig(**settings)


def test_windows_shorter_than_a_frame_are_refused_under_javisbench_only():
    config = JavisScoreConfig(window_s=0.5, overlap_s=0.0)
    with pytest.raises(ValueError, match=r"advance by no whole frame at 1\.0 fps"):
        sync_windows(10, 1.0, 160_000, config, "javisbench")
    assert all(stop > start for (start, stop), _ in sync_windows(10, 1.0, 160_000, config))
