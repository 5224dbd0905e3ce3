"""AV-Align: the published peaks and scores, and what a clip without sound or movement gets."""

from __future__ import annotations

import importlib
import json
import math

import numpy as np
import pytest

from evaluation.judges.av_align import AVAlignJudge, audio_peaks, av_align, flow_magnitudes, peak_score, video_peaks
from media import AVClip
from media.clip import empty_audio
from rewards import Prompt
from rewards.registry import MissingPackageError
from tests.golden_files import golden_path

pytest.importorskip("librosa")
pytest.importorskip("cv2")

FPS, RATE = 16.0, 16_000
STRIKES = (0.5, 1.0, 1.5)  # seconds


@pytest.fixture(scope="module")
def golden():
    return json.loads(golden_path("media/av_align.json").read_text())


def test_peaks_flow_and_scores_are_the_published_ones(golden):
    arrays = np.load(golden_path("media/av_align.npz"))
    for index, case in enumerate(golden["cases"]):
        heard = audio_peaks(arrays[f"case{index}.audio"], case["sr"])
        np.testing.assert_array_equal(heard, arrays[f"case{index}.audio_peaks"])
        flow = flow_magnitudes(arrays[f"case{index}.frames_bgr"][..., ::-1])
        np.testing.assert_allclose(flow, arrays[f"case{index}.flow"], rtol=0, atol=1e-4)
        seen = video_peaks(flow, case["fps"])
        np.testing.assert_array_equal(seen, arrays[f"case{index}.video_peaks"])
        assert peak_score(heard, seen, case["fps"]) == pytest.approx(case["score"], abs=1e-9)


def test_peak_lists_have_the_published_scores(golden):
    for case in golden["peak_lists"]:
        score = peak_score(np.array(case["audio"]), np.array(case["video"]), case["fps"])
        assert score == pytest.approx(case["score"], abs=1e-9), case


def test_maxima_are_the_published_ones(golden):
    for case in golden["local_maxima"]:
        assert video_peaks(np.array(case["values"], dtype=float), case["fps"]).tolist() == case["times"]


def striking_clip(delay_s: float = 0.0, channels: int = 2) -> AVClip:
    """A square that jumps at each strike, heard `delay_s` later."""
    video = np.zeros((32, 48, 64, 3), dtype=np.uint8)
    for index, frame in enumerate(video):
        left = 8 + 6 * sum(index >= round(time * FPS) for time in STRIKES)
        frame[16:32, left : left + 16] = np.random.default_rng(0).integers(100, 255, (16, 16, 3))
    audio = np.zeros((channels, 2 * RATE), dtype=np.float32)
    for time in STRIKES:
        start = round((time + delay_s) * RATE)
        audio[:, start : start + 800] = 0.8 * np.exp(-np.arange(800) / 100) * np.sin(np.arange(800) * 0.7)
    return AVClip(video, FPS, audio, RATE)


def test_strikes_that_are_seen_and_heard_together_score_high():
    assert av_align(striking_clip()) > 0.9
    assert av_align(striking_clip(delay_s=0.25)) == 0.0


def test_no_track_is_undefined_and_silence_scores_nothing():
    clip = striking_clip()
    mute = AVClip(clip.video, clip.fps, empty_audio(), 0)
    silent = AVClip(clip.video, clip.fps, np.zeros_like(clip.audio), RATE)
    still = AVClip(clip.video[:1].repeat(32, axis=0), clip.fps, clip.audio, RATE)
    judge = AVAlignJudge.load()
    values = judge.measure([mute, silent, still, clip], [Prompt("p", "a ball")] * 4)["av_align"]
    assert math.isnan(values[0])
    assert values[1:3].tolist() == [0.0, 0.0]
    assert values[3].item() == pytest.approx(av_align(clip))


def test_a_single_frame_has_no_peaks():
    flow = flow_magnitudes(np.zeros((1, 32, 32, 3), dtype=np.uint8))
    assert flow.tolist() == [0.0]
    assert video_peaks(flow, FPS).size == 0


def test_a_missing_package_is_named_with_the_line_that_installs_it(monkeypatch):
    def without_opencv(name):
        if name == "cv2":
            raise ModuleNotFoundError("No module named 'cv2'", name="cv2")
        return importlib.import_module(name)

    monkeypatch.setattr("evaluation.judges.av_align.import_module", without_opencv)
    with pytest.raises(MissingPackageError, match=r"'cv2'.*pip install librosa opencv-python-headless"):
        AVAlignJudge.load()


def test_weights_are_refused():
    with pytest.raises(ValueError, match="has no weights to load"):
        AVAlignJudge.load("tiny")
