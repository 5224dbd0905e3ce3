"""Windows of frames and sound, and the crop of the picture, are the published ones."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from model.data.windows import (
    Window,
    audio_window,
    draw_audio_window,
    draw_window,
    num_clip_samples,
    num_window_samples,
    resize_crop,
)
from tests.model.javisdit.golden import golden_path

TOLERANCE = 1e-5


def test_frames_and_sound_of_every_published_window():
    """Those of every second frame are left out: no published stage has them."""
    cases = json.loads(golden_path("media/clip_alignment.json").read_text(encoding="utf-8"))
    cases = [case for case in cases if case["frame_interval"] == 1]
    assert len({case["fps"] for case in cases}) == 3
    for case in cases:
        window = Window(case["start_frame"], case["end_frame"])
        assert list(range(*window)) == case["frame_indices"]
        assert num_clip_samples(case["total_frames"], case["fps"]) == case["audio_samples"]
        sound = audio_window(window, case["total_frames"], case["audio_samples"])
        assert sound == (case["audio_start"], case["audio_end"])
        assert sound.end - sound.start == case["audio_count"]
        assert (sound.start, sound.end - 1) == (case["audio_first"], case["audio_last"])


def test_starts_are_uniform_and_never_the_last_possible_one():
    rng = np.random.default_rng(0)
    starts = Counter(draw_window(40, 33, rng).start for _ in range(1400))
    assert sorted(starts) == [0, 1, 2, 3, 4, 5, 6]  # 7 would fit as well
    assert min(starts.values()) > 150
    for total_frames in (33, 34):
        assert {draw_window(total_frames, 33, rng).start for _ in range(20)} == {0}


def test_a_window_and_its_sound_lie_inside_the_clip():
    for seed in range(50):
        window = draw_window(61, 33, np.random.default_rng(seed))
        assert window == draw_window(61, 33, np.random.default_rng(seed))
        assert 0 <= window.start < window.end == window.start + 33 <= 61
        sound = audio_window(window, 61, num_clip_samples(61, 24.0))
        assert 0 <= sound.start < sound.end <= num_clip_samples(61, 24.0)


def test_sound_and_picture_of_16_fps_begin_and_end_together():
    window = draw_window(100, 33, np.random.default_rng(1))
    sound = audio_window(window, 100, num_clip_samples(100, 16.0))
    assert sound == (window.start * 1000, window.end * 1000)


def test_sound_alone_lasts_frames_at_24_fps():
    rng = np.random.default_rng(0)
    windows = [draw_audio_window(90_000, num_frames, rng) for num_frames in (33, 65, 97, 129)]
    assert [window.end - window.start for window in windows] == [22_000, 43_333, 64_666, 86_000]
    assert all(0 <= window.start < window.end < 90_000 for window in windows)
    for changes, expected in (({"fps": 16.0}, 33_000), ({"sample_rate": 8000}, 11_000)):
        window = draw_audio_window(90_000, 33, rng, **changes)
        assert window.end - window.start == num_window_samples(33, **changes) == expected


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda rng: draw_window(32, 33, rng), "32 frames, but its window takes 33.*longer clip, or a shorter bucket"),
        (lambda rng: draw_audio_window(21_999, 33, rng), "21999 samples, but its window takes 22000"),
    ],
)
def test_a_clip_shorter_than_its_window_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw(np.random.default_rng(0))


def test_frames_are_resized_and_cropped_as_published():
    golden = np.load(golden_path("media/resize_crop.npz"))
    names = {name.split(".")[0] for name in golden.files}
    assert len(names) >= 2
    for name in names:
        expected = golden[f"{name}.out"].transpose(0, 2, 3, 1)
        found = resize_crop(golden[f"{name}.frames"].transpose(0, 2, 3, 1), *expected.shape[1:3])
        assert np.abs(found.numpy() - expected).max() <= TOLERANCE


def test_a_picture_of_the_right_size_is_left_alone():
    frames = np.random.default_rng(0).integers(0, 256, (9, 16, 24, 3), dtype=np.uint8)
    found = resize_crop(frames, 16, 24)
    assert found.dtype == torch.float32
    assert torch.equal(((found + 1) * 127.5).round().to(torch.uint8), torch.from_numpy(frames))


def test_of_an_odd_rest_the_larger_part_is_cut_behind():
    frames = np.random.default_rng(0).integers(0, 256, (1, 16, 19, 3), dtype=np.uint8)
    assert torch.equal(resize_crop(frames, 16, 16), resize_crop(frames[:, :, 1:17], 16, 16))


def test_the_middle_is_kept_and_nothing_is_stretched():
    """A wide picture whose thirds are black, white and black: the square crop is the white middle."""
    frames = np.zeros((2, 10, 30, 3), dtype=np.uint8)
    frames[:, :, 10:20] = 255
    found = resize_crop(frames, 20, 20)
    assert found.shape == (2, 20, 20, 3)
    assert (found[:, :, 2:-2] == 1).all()
    assert torch.equal(resize_crop(frames.transpose(0, 2, 1, 3), 20, 20), found.transpose(1, 2))
