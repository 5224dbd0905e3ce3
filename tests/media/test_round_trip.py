from __future__ import annotations

import os
import pickle

import av
import numpy as np
import pytest

from media import AVClip, MediaError, probe, read_clip, read_wav, write_clip
from media.clip import empty_audio
from tests.media.clips import CLICK_S, click, click_time, make_clip, moving_ball

AAC_FRAME = 1024


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100, 48000, 96000])
def test_sound_keeps_its_time_and_length(tmp_path, sample_rate, channels):
    clip = make_clip(sample_rate, channels)
    write_clip(clip, tmp_path / "a.mp4")
    back = read_clip(tmp_path / "a.mp4")
    assert back.audio.shape[0] == channels
    assert back.sample_rate == sample_rate
    assert back.num_samples == clip.num_samples
    for channel in back.audio:
        assert click_time(channel, sample_rate) == pytest.approx(CLICK_S, abs=0.001)


def test_stereo_channels_are_not_mixed_up(tmp_path):
    audio = np.concatenate([click(44100, 2.0, 0.5), click(44100, 2.0, 1.5)])
    write_clip(AVClip(moving_ball(32), 16.0, audio, 44100), tmp_path / "a.mp4")
    for back in (read_clip(tmp_path / "a.mp4").audio, read_wav(tmp_path / "a.wav")[0]):
        assert click_time(back[0], 44100) == pytest.approx(0.5, abs=0.001)
        assert click_time(back[1], 44100) == pytest.approx(1.5, abs=0.001)


def test_a_rate_that_aac_lacks_is_resampled_in_the_mp4_and_kept_in_the_wav(tmp_path):
    clip = make_clip(17000)
    write_clip(clip, tmp_path / "a.mp4")
    back = read_clip(tmp_path / "a.mp4")
    assert back.sample_rate == 22050
    assert click_time(back.audio[0], 22050) == pytest.approx(CLICK_S, abs=0.001)
    assert read_wav(tmp_path / "a.wav")[1] == 17000


def test_wav_beside_the_mp4_holds_the_samples_exactly(tmp_path):
    rng = np.random.default_rng(0)
    audio = rng.uniform(-1, 1, (1, 33000)).astype(np.float32)
    write_clip(AVClip(moving_ball(), 16.0, audio, 16000), tmp_path / "a.mp4")
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav")[0], audio)
    back = read_clip(tmp_path / "a.mp4", audio_path=tmp_path / "a.wav")
    np.testing.assert_array_equal(back.audio, audio)


@pytest.mark.parametrize("fps", [7.3, 16.0, 24.0, 30000 / 1001, 60.0])
def test_frame_rate_and_number_of_frames_survive(tmp_path, fps):
    clip = make_clip(fps=fps)
    write_clip(clip, tmp_path / "a.mp4")
    back = read_clip(tmp_path / "a.mp4")
    assert back.fps == pytest.approx(fps, rel=1e-6)
    assert back.num_frames == 33
    moved = np.abs(back.video.astype(int) - clip.video).mean(axis=(1, 2, 3))
    assert (
        moved.max() < 6
    )  # each frame keeps its place: neighbouring frames differ more than this at the edge of the ball


@pytest.mark.parametrize("size", [(63, 65), (64, 33), (33, 64), (2, 2), (1, 1), (17, 500)])
def test_any_size_comes_back(tmp_path, size):
    height, width = size
    clip = make_clip(num_frames=4, height=height, width=width)
    write_clip(clip, tmp_path / "a.mp4")
    back = read_clip(tmp_path / "a.mp4")
    info = probe(tmp_path / "a.mp4")
    assert back.video.shape == (4, height, width, 3)
    assert (info.height, info.width) == size
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


@pytest.mark.parametrize(
    "color",
    [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 0),
        (0, 0, 0),
        (255, 255, 255),
        (128, 128, 128),
        (200, 30, 120),
        (17, 99, 201),
    ],
)
def test_flat_colours_do_not_shift(tmp_path, color):
    video = np.empty((5, 64, 64, 3), np.uint8)
    video[:] = color
    write_clip(AVClip(video, 16.0, empty_audio(), 0), tmp_path / "a.mp4")
    assert np.abs(read_clip(tmp_path / "a.mp4").video.astype(int) - video).max() <= 3


def test_random_flat_colours_have_no_bias(tmp_path):
    colors = np.random.default_rng(0).integers(20, 236, (64, 3)).astype(np.uint8)
    video = np.broadcast_to(colors[:, None, None], (64, 16, 16, 3)).copy()
    write_clip(AVClip(video, 16.0, empty_audio(), 0), tmp_path / "a.mp4")
    shift = read_clip(tmp_path / "a.mp4").video.astype(float) - video
    assert np.abs(shift.mean(axis=(0, 1, 2))).max() < 0.5


def test_colour_tags_say_bt709_limited(tmp_path):
    write_clip(make_clip(), tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert tags == (1, 1, 1, 1)


def test_smooth_pictures_are_nearly_lossless(tmp_path):
    rows, columns = np.mgrid[:64, :64]
    image = np.stack([rows * 3 + 20, columns * 3 + 20, 240 - (rows + columns)], axis=-1).astype(np.uint8)
    video = np.stack([np.roll(image, shift, axis=1) for shift in range(8)])
    write_clip(AVClip(video, 16.0, empty_audio(), 0), tmp_path / "a.mp4")
    error = read_clip(tmp_path / "a.mp4").video[:, :, 8:].astype(float) - video[:, :, 8:]
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 36


def test_no_sound_gives_no_audio_track_and_no_wav(tmp_path):
    write_clip(AVClip(moving_ball(5), 16.0, empty_audio(), 0), tmp_path / "a.mp4")
    back = read_clip(tmp_path / "a.mp4")
    info = probe(tmp_path / "a.mp4")
    assert not back.has_audio
    assert back.audio.shape == (0, 0)
    assert (info.has_audio, info.sample_rate, info.audio_duration_s) == (False, 0, 0.0)
    assert not (tmp_path / "a.wav").exists()


def test_the_same_clip_gives_the_same_bytes(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_clip(make_clip(44100, 2), tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_the_bytes_do_not_depend_on_the_number_of_cores(tmp_path):
    write_clip(
        make_clip(num_frames=4, height=512, width=512), tmp_path / "a.mp4"
    )  # a small clip gets one thread in any case
    assert b" threads=1 " in (tmp_path / "a.mp4").read_bytes()  # x264 keeps its settings in the stream


def test_very_short_sound_and_a_single_frame(tmp_path):
    audio = np.full((1, 3), 0.5, np.float32)
    write_clip(AVClip(moving_ball(1), 16.0, audio, 16000), tmp_path / "a.mp4")
    back = read_clip(tmp_path / "a.mp4")
    assert back.num_frames == 1
    assert back.num_samples <= AAC_FRAME


def test_probe_tells_what_read_clip_gives(tmp_path):
    write_clip(make_clip(44100, 2), tmp_path / "a.mp4")
    info, back = probe(tmp_path / "a.mp4"), read_clip(tmp_path / "a.mp4")
    assert (info.num_frames, info.height, info.width) == back.video.shape[:3]
    assert (info.num_channels, info.sample_rate) == (back.num_channels, back.sample_rate)
    assert info.fps == back.fps
    assert info.duration_s == pytest.approx(33 / 16, abs=1 / 16)
    assert info.audio_duration_s == pytest.approx(33 / 16, abs=AAC_FRAME / 44100)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_clip(make_clip(), tmp_path / "a.mp4", wav=False)
    before = (tmp_path / "a.mp4").read_bytes()

    def fail(*args):
        raise RuntimeError("disk full")

    monkeypatch.setattr("media.write._encode_audio", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_clip(make_clip(num_frames=5), tmp_path / "a.mp4", wav=False)
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_wav_is_in_place_before_the_mp4(tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("killed")

    monkeypatch.setattr("media.write._write_mp4", fail)
    with pytest.raises(RuntimeError):
        write_clip(make_clip(), tmp_path / "a.mp4")
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize(
    "name", ['it\'s "quoted" <b>', "a:b", "emoji 🎾", "שלום", "per%cent%03d", "-dash", "new\nline", "x" * 251]
)
def test_unusual_file_names(tmp_path, name):
    path = tmp_path / f"{name}.mp4"
    write_clip(make_clip(num_frames=3), path)
    assert read_clip(path, audio_path=path.with_suffix(".wav")).num_frames == 3
    assert sorted(os.listdir(tmp_path)) == sorted([f"{name}.mp4", f"{name}.wav"])


def test_relative_names_that_look_like_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(make_clip(num_frames=3), "concat:x.mp4")
    assert read_clip("concat:x.mp4").num_frames == 3


def test_write_clip_refuses_what_it_cannot_write(tmp_path):
    with pytest.raises(ValueError, match=r"\.mp4"):
        write_clip(make_clip(), tmp_path / "a.wav")
    with pytest.raises(ValueError, match="6 channels"):
        write_clip(make_clip(channels=6), tmp_path / "a.mp4")
    assert os.listdir(tmp_path) == []


def test_clip_refuses_wrong_arrays():
    video, audio = moving_ball(2), click(16000, 1.0)
    for bad in (video.astype(np.float32), video[0], video[..., :2], video[:0]):
        with pytest.raises(ValueError, match=r"AVClip\.video"):
            AVClip(bad, 16.0, audio, 16000)
    for bad in (audio.astype(np.float64), audio[0], audio * 2, audio * np.nan):
        with pytest.raises(ValueError, match=r"AVClip\.audio"):
            AVClip(video, 16.0, bad, 16000)
    for bad_audio, bad_rate in ((audio, 0), (empty_audio(), 16000), (audio[:, :0], 16000), (audio, -1)):
        with pytest.raises(ValueError, match="sample_rate"):
            AVClip(video, 16.0, bad_audio, bad_rate)
    with pytest.raises(ValueError, match="fps"):
        AVClip(video, 0.0, audio, 16000)


def test_media_error_survives_pickling():
    error = pickle.loads(pickle.dumps(MediaError("a.mp4", "is empty")))
    assert (str(error), error.path, error.reason) == ("a.mp4: is empty", "a.mp4", "is empty")
