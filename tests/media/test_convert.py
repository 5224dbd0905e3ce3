from __future__ import annotations

import numpy as np
import pytest

from media import AVClip, MediaError, convert_clip, read_clip, write_clip
from media.clip import empty_audio
from media.convert import resize_frame
from tests.media.clips import CLICK_S, click_time, frame_numbers, make_clip, numbered_frames


def test_nothing_asked_changes_nothing():
    clip = make_clip()
    same = convert_clip(clip)
    np.testing.assert_array_equal(same.video, clip.video)
    np.testing.assert_array_equal(same.audio, clip.audio)
    assert (same.fps, same.sample_rate) == (16.0, 16000)


@pytest.mark.parametrize(
    ("old", "new", "count"), [(30.0, 16.0, 30), (16.0, 24.0, 30), (24.0, 24.0, 30), (30.0, 15.0, 30)]
)
def test_frame_rate_takes_the_latest_frame_at_each_time(old, new, count):
    clip = convert_clip(AVClip(numbered_frames(count), old, empty_audio(), 0), fps=new)
    wanted = [int(index * old / new + 1e-6) for index in range(round(count / old * new))]
    assert clip.fps == new
    assert frame_numbers(clip.video) == wanted


def test_num_frames_cuts_picture_and_sound_together():
    clip = convert_clip(make_clip(num_frames=60, fps=30.0), fps=16.0, num_frames=17, sample_rate=8000)
    assert clip.num_frames == 17
    assert clip.audio.shape == (1, round(17 / 16 * 8000))
    assert click_time(clip.audio[0], 8000) == pytest.approx(CLICK_S, abs=0.001)


def test_short_sound_is_padded_and_a_missing_sound_stays_missing():
    source = make_clip()
    short = AVClip(source.video, 16.0, source.audio[:, :1000], 16000)
    assert convert_clip(short, num_frames=33).num_samples == 33000
    assert convert_clip(short).num_samples == 1000
    silent = convert_clip(AVClip(source.video, 16.0, empty_audio(), 0), num_frames=10, sample_rate=8000, num_channels=2)
    assert silent.audio.shape == (0, 0)


def test_one_missing_frame_is_repeated_more_are_an_error():
    clip = make_clip(num_frames=20)
    longer = convert_clip(clip, num_frames=21)
    np.testing.assert_array_equal(longer.video[20], clip.video[19])
    with pytest.raises(MediaError, match=r"20 frames at 16 fps \(1\.25 s\), but 22 \(1\.38 s\)"):
        convert_clip(clip, num_frames=22)


def test_resize_fills_and_cuts_the_centre():
    frame = np.zeros((60, 120, 3), np.uint8)
    frame[:, 30:90] = (10, 200, 30)  # the central square
    frame[:, :30] = 255
    square = resize_frame(frame, 30, 30)
    assert square.shape == (30, 30, 3)
    np.testing.assert_allclose(square[:, 2:-2].reshape(-1, 3), np.broadcast_to((10, 200, 30), (26 * 30, 3)), atol=1)
    assert resize_frame(frame, 30, None).shape == (30, 60, 3)
    assert resize_frame(frame, None, 30).shape == (15, 30, 3)
    assert resize_frame(frame, 120, 120).shape == (120, 120, 3)


def test_shrinking_is_anti_aliased():
    columns = np.arange(256) % 2 * 255
    stripes = np.broadcast_to(columns[None, :, None], (256, 256, 3)).astype(np.uint8)
    small = resize_frame(np.ascontiguousarray(stripes), 32, 32)
    assert abs(small.mean() - 127.5) < 2
    assert small[:, 2:-2].std() < 3


@pytest.mark.parametrize("name", ["fps", "height", "width", "num_frames", "sample_rate", "num_channels"])
def test_numbers_that_are_not_positive_are_refused(name):
    with pytest.raises(ValueError, match=name):
        convert_clip(make_clip(), **{name: 0})


def test_reading_converts_as_convert_clip_does(tmp_path):
    write_clip(make_clip(44100, 2, num_frames=50, height=60, width=90, fps=24.0), tmp_path / "a.mp4")
    wanted = {"fps": 16.0, "height": 32, "width": 32, "num_frames": 20, "sample_rate": 16000, "num_channels": 1}
    read = read_clip(tmp_path / "a.mp4", **wanted)
    converted = convert_clip(read_clip(tmp_path / "a.mp4"), **wanted)
    np.testing.assert_array_equal(read.video, converted.video)
    np.testing.assert_allclose(read.audio, converted.audio, atol=1e-6)
    assert (read.fps, read.sample_rate) == (converted.fps, converted.sample_rate)
