"""Windows of frames and sound, and the crop of the picture, are the published ones."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from golden import golden_path

from model.windows import Window, audio_window, draw_audio_window, draw_window, num_clip_samples, resize_crop

TOLERANCE = 1e-5


def test_frames_and_sound_of_every_published_window():
    cases = json.loads(golden_path("media/clip_alignment.json").read_text(encoding="utf-8"))
    assert {case["frame_interval"] for case in cases} == {1, 2}
    for case in cases:
        window = Window(*(case[name] for name in ("start_frame", "end_frame", "num_frames", "frame_interval")))
        assert window.frame_indices.tolist() == case["frame_indices"]
        assert num_clip_samples(case["total_frames"], case["fps"]) == case["audio_samples"]
        sound = audio_window(window, case["total_frames"], case["audio_samples"])
        for name in ("audio_start", "audio_end", "audio_count"):
            assert getattr(sound, name) == case[name]
        assert len(sound.sample_indices) == case["audio_count"]
        assert (sound.sample_indices[0], sound.sample_indices[-1]) == (case["audio_first"], case["audio_last"])


def test_starts_are_uniform_and_never_the_last_possible_one():
    rng = np.random.default_rng(0)
    starts = Counter(draw_window(40, 33, rng).start_frame for _ in range(1400))
    assert sorted(starts) == [0, 1, 2, 3, 4, 5, 6]  # 7 would fit as well
    assert min(starts.values()) > 150
    for total_frames in (33, 34):
        assert {draw_window(total_frames, 33, rng).start_frame for _ in range(20)} == {0}


@pytest.mark.parametrize(("num_frames", "frame_interval"), [(33, 1), (17, 2), (5, 9)])
def test_a_window_lies_inside_the_clip_and_shows_both_its_ends(num_frames, frame_interval):
    for seed in range(50):
        window = draw_window(61, num_frames, np.random.default_rng(seed), frame_interval)
        assert window == draw_window(61, num_frames, np.random.default_rng(seed), frame_interval)
        assert 0 <= window.start_frame < window.end_frame <= 61
        indices = window.frame_indices
        assert (len(indices), indices[0], indices[-1]) == (num_frames, window.start_frame, window.end_frame - 1)
        sound = audio_window(window, 61, num_clip_samples(61, 24.0))
        assert 0 <= sound.audio_start <= sound.sample_indices[0] <= sound.sample_indices[-1] < sound.audio_end


def test_a_start_that_rounding_makes_negative_is_the_first_sample():
    """The window of 1.75 samples a frame would begin at -1 and wrap around in the release."""
    sound = audio_window(Window(0, 4, 2, frame_interval=2), total_frames=8, num_samples=14)
    assert (sound.audio_start, sound.audio_end, sound.audio_count) == (0, 7, 4)


def test_sound_and_picture_of_16_fps_begin_and_end_together():
    window = draw_window(100, 33, np.random.default_rng(1))
    sound = audio_window(window, 100, num_clip_samples(100, 16.0))
    assert (sound.audio_start, sound.audio_end) == (window.start_frame * 1000, window.end_frame * 1000)
    assert sound.audio_count == 33_000


def test_sound_alone_lasts_frames_at_24_fps():
    rng = np.random.default_rng(0)
    windows = [draw_audio_window(90_000, num_frames, rng) for num_frames in (33, 65, 97, 129)]
    assert [window.audio_count for window in windows] == [22_000, 43_333, 64_666, 86_000]
    assert all(0 <= window.audio_start < window.audio_end < 90_000 for window in windows)
    assert all(len(set(np.diff(window.sample_indices))) == 1 for window in windows)
    assert draw_audio_window(90_000, 33, rng, fps=16.0).audio_count == 33_000
    assert draw_audio_window(90_000, 24, rng, sample_rate=8000).audio_count == 8000


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda rng: draw_window(32, 33, rng), "32 frames, but its window takes 33.*longer clip, or a shorter bucket"),
        (lambda rng: draw_window(65, 33, rng, 2), "65 frames, but its window takes 66"),
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
