"""Reading of only some frames of a clip: the other frames are black and are not converted."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

import media.read
from media import MediaError, read_clip, write_clip
from tests.media.clips import frame_numbers, make_clip, moving_ball, numbered_frames, set_rotation, write_raw

VARIABLE_S = [0.0, 0.1, 0.2, 0.5, 1.0, 1.05, 1.1, 1.6]


@pytest.fixture
def converted(monkeypatch):
    """Collect the times of the frames that are converted to RGB."""
    times = []
    to_rgb = media.read.to_rgb
    monkeypatch.setattr(
        media.read, "to_rgb", lambda container, frame: times.append(frame.time) or to_rgb(container, frame)
    )
    return times


def assert_same_but_black(some, whole, chosen):
    assert (some.fps, some.sample_rate) == (whole.fps, whole.sample_rate)
    assert some.video.shape == whole.video.shape
    np.testing.assert_array_equal(some.audio, whole.audio)
    expected = np.zeros_like(whole.video)
    expected[chosen] = whole.video[chosen]
    np.testing.assert_array_equal(some.video, expected)


def test_no_other_frame_is_converted(tmp_path, converted):
    write_clip(make_clip(), tmp_path / "a.mp4")
    whole = read_clip(tmp_path / "a.mp4")
    assert len(converted) == 33
    converted.clear()
    asked = []
    some = read_clip(tmp_path / "a.mp4", frames=lambda *about: asked.append(about) or [0, 7, 32])
    assert asked == [(33, 16.0)]
    assert converted == pytest.approx([0, 7 / 16, 2])
    assert_same_but_black(some, whole, [0, 7, 32])


def test_none_is_the_whole_clip(tmp_path):
    write_clip(make_clip(), tmp_path / "a.mp4")
    np.testing.assert_array_equal(
        read_clip(tmp_path / "a.mp4", frames=lambda *_: None).video, read_clip(tmp_path / "a.mp4").video
    )


def test_the_first_frame_tells_the_size_even_if_nothing_is_chosen(tmp_path, converted):
    write_clip(make_clip(), tmp_path / "a.mp4")
    clip = read_clip(tmp_path / "a.mp4", frames=lambda *_: ())
    assert clip.video.shape == (33, 64, 64, 3)
    assert converted == [0]


def test_indices_count_from_the_end_too_and_may_lie_outside(tmp_path):
    write_clip(make_clip(), tmp_path / "a.mp4")
    clip = read_clip(tmp_path / "a.mp4", frames=lambda *_: np.array([-1, 40, -50]))
    assert clip.video[32].any()
    assert not clip.video[1:32].any()


@pytest.mark.parametrize("fps", [None, 10.0, 3.0])
@pytest.mark.parametrize("chosen", [[0, 3], [0, 4], [0, 2, 3, 4], [0, 1, 4]])
def test_frames_are_repeated_and_dropped_by_their_times_as_in_the_whole_clip(tmp_path, converted, fps, chosen):
    path = write_raw(tmp_path / "a.mp4", numbered_frames(8), VARIABLE_S)
    whole = read_clip(path, fps=fps)
    converted.clear()
    some = read_clip(path, fps=fps, frames=lambda *_: chosen)
    assert_same_but_black(some, whole, chosen)
    assert len(converted) == len(set(frame_numbers(whole.video[chosen])))  # a repeated one is converted once


def test_turned_resized_and_cut_as_in_the_whole_clip(tmp_path):
    path = write_raw(tmp_path / "a.mp4", moving_ball(30, 32, 64), [index / 30 for index in range(30)])
    set_rotation(path, 0, 1, -1, 0)
    options = {"fps": 16.0, "height": 48, "num_frames": 12}
    some = read_clip(path, **options, frames=lambda *_: [0, 5, 11])
    assert some.video.shape == (12, 48, 24, 3)
    assert_same_but_black(some, read_clip(path, **options), [0, 5, 11])


def test_a_last_frame_that_is_missing_repeats_the_one_before_it(tmp_path):
    write_clip(make_clip(num_frames=20), tmp_path / "a.mp4")
    some = read_clip(tmp_path / "a.mp4", num_frames=21, frames=lambda *_: [20])
    np.testing.assert_array_equal(some.video[20], read_clip(tmp_path / "a.mp4").video[19])


def test_a_picture_that_changes_its_size_is_told_whatever_is_chosen(tmp_path):
    for size, start in ((32, 0), (48, 5)):
        with av.open(str(tmp_path / f"{size}.ts"), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.height = stream.width = size
            stream.pix_fmt = "yuv420p"
            for index in range(5):
                frame = av.VideoFrame.from_ndarray(moving_ball(1, size, size)[0], "rgb24")
                frame.pts, frame.time_base = start + index, Fraction(1, 30)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    joined = tmp_path / "joined.ts"
    joined.write_bytes((tmp_path / "32.ts").read_bytes() + (tmp_path / "48.ts").read_bytes())
    for frames in (None, lambda *_: [0]):
        with pytest.raises(MediaError, match="changes its picture size"):
            read_clip(joined, frames=frames)
        assert read_clip(joined, height=32, width=32, frames=frames).video.shape[1:] == (32, 32, 3)
