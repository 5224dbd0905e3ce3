"""Files that this package did not write: late or early sound, variable rates, rotation, damage."""

from __future__ import annotations

import av
import numpy as np
import pytest

from media import MediaError, probe, read_clip, read_wav, write_clip, write_wav
from tests.golden_files import real_clips
from tests.media.clips import (
    click,
    click_time,
    frame_numbers,
    make_clip,
    moving_ball,
    numbered_frames,
    set_rotation,
    write_raw,
)

FRAMES_30 = [index / 30 for index in range(30)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("audio_start_s", [0.0, 0.02, 0.31, 0.5])
def test_sound_that_starts_late_is_padded(tmp_path, suffix, audio_start_s):
    audio = click(48000, 1.0, 0.25, channels=2)
    path = write_raw(tmp_path / f"a.{suffix}", moving_ball(30), FRAMES_30, audio, audio_start_s=audio_start_s)
    clip = read_clip(path)
    assert click_time(clip.audio[0], 48000) == pytest.approx(0.25 + audio_start_s, abs=0.002)
    assert clip.audio[:, : int(audio_start_s * 48000)].max(initial=0.0) < 0.02
    assert clip.num_samples / 48000 == pytest.approx(1.0 + audio_start_s, abs=1024 / 48000)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("video_start_s", [0.03, 0.1, 0.33])
def test_sound_that_starts_early_is_cut(tmp_path, suffix, video_start_s):
    times = [time + video_start_s for time in FRAMES_30]
    path = write_raw(tmp_path / f"a.{suffix}", moving_ball(30), times, click(48000, 1.5, 0.75))
    clip = read_clip(path)
    assert clip.num_frames == 30
    assert click_time(clip.audio[0], 48000) == pytest.approx(0.75 - video_start_s, abs=0.002)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le", "pcm_f32le", "flac", "libmp3lame", "libopus"])
def test_sample_layouts_and_priming_of_other_codecs(tmp_path, codec):
    audio = np.concatenate([click(48000, 1.0, 0.2), click(48000, 1.0, 0.6)])
    path = write_raw(tmp_path / "a.mkv", moving_ball(30), FRAMES_30, audio, audio_codec=codec)
    clip = read_clip(path)
    assert clip.num_channels == 2
    assert click_time(clip.audio[0], 48000) == pytest.approx(0.2, abs=0.002)
    assert click_time(clip.audio[1], 48000) == pytest.approx(0.6, abs=0.002)
    assert 0.5 < clip.audio.max() <= 1.0


def test_a_gap_in_the_sound_stays_silent(tmp_path):
    audio = click(48000, 1.0, 0.9)
    write_raw(tmp_path / "a.mkv", moving_ball(30), FRAMES_30, audio, audio_codec="pcm_s16le", audio_gap_s=(0.3, 0.6))
    clip = read_clip(tmp_path / "a.mkv")
    assert click_time(clip.audio[0], 48000) == pytest.approx(0.9, abs=0.002)
    assert clip.num_samples == pytest.approx(48000, abs=1024)


def test_variable_frame_rate_follows_timestamps(tmp_path):
    times = [0.0, 0.1, 0.2, 0.5, 1.0, 1.05, 1.1, 1.6]
    path = write_raw(tmp_path / "a.mp4", numbered_frames(8), times)
    clip = read_clip(path, fps=10.0)
    #        0.0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1.0 1.1 1.2 1.3 1.4 1.5 1.6
    wanted = [0, 1, 2, 2, 2, 3, 3, 3, 3, 3, 4, 6, 6, 6, 6, 6, 7]
    assert frame_numbers(clip.video)[:17] == wanted
    average = read_clip(path)
    assert average.duration_s == pytest.approx(1.8, abs=0.3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_jittering_timestamps_lose_no_frame_at_the_files_own_rate(tmp_path, suffix):
    jitter = np.random.default_rng(0).uniform(-0.008, 0.008, 30)
    times = [index / 30 + offset for index, offset in enumerate(jitter - jitter[0])]
    clip = read_clip(write_raw(tmp_path / f"a.{suffix}", numbered_frames(30), times))
    assert clip.fps == pytest.approx(30, rel=0.02)
    assert sum(a != b for a, b in zip(frame_numbers(clip.video), range(30), strict=False)) == 0


def test_lower_rate_takes_the_latest_frame_before(tmp_path):
    path = write_raw(tmp_path / "a.mkv", numbered_frames(30), FRAMES_30)
    clip = read_clip(path, fps=16.0, num_frames=16)
    assert frame_numbers(clip.video) == [int(index / 16 * 30 + 0.01) for index in range(16)]


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), "top left"),
        ((0, 1, -1, 0), "top right"),  # right becomes down: a quarter turn clockwise, as in recordings of phones
        ((-1, 0, 0, -1), "bottom right"),
        ((0, -1, 1, 0), "bottom left"),
    ],
)
def test_rotation_is_applied(tmp_path, matrix, corner):
    video = np.zeros((3, 32, 64, 3), np.uint8)
    video[:, :8, :8] = 255
    path = write_raw(tmp_path / "a.mp4", video, FRAMES_30[:3])
    set_rotation(path, *matrix)
    image = read_clip(path).video[0].mean(axis=-1)
    info = probe(path)
    assert image.shape == ((64, 32) if matrix[0] == 0 else (32, 64))
    assert (info.height, info.width) == image.shape
    rows = slice(0, 8) if corner.startswith("top") else slice(-8, None)
    columns = slice(0, 8) if corner.endswith("left") else slice(-8, None)
    assert image[rows, columns].mean() > 230
    assert image.sum() == pytest.approx(64 * 255, rel=0.1)


@pytest.mark.parametrize("reader", [probe, read_clip])
def test_bad_files_are_named_with_the_reason(tmp_path, reader):
    write_clip(make_clip(), tmp_path / "good.mp4")
    content = (tmp_path / "good.mp4").read_bytes()
    bad = {
        "empty.mp4": (b"", "is empty"),
        "text.mp4": (b"hello\n" * 100, "not a media file"),
        "text.txt": (b"hello\n" * 100, "is not a clip"),
        "noise.mp4": (np.random.default_rng(0).bytes(5000), "not a media file"),
        "header.mp4": (content[:200], "truncated"),
        "half.mp4": (content[: len(content) // 2], "truncated"),
        "almost.mp4": (content[:-20], "truncated"),
    }
    for name, (data, reason) in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MediaError, match=reason) as caught:
            reader(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
    with pytest.raises(MediaError, match=r"missing\.mp4: .*No such file"):
        reader(tmp_path / "missing.mp4")
    with pytest.raises(MediaError, match="directory"):
        reader(tmp_path)


def test_no_cut_of_a_clip_is_taken_for_a_finished_one(tmp_path):
    write_clip(make_clip(), tmp_path / "good.mp4")
    for name in ("good.mp4", "good.wav"):
        content = (tmp_path / name).read_bytes()
        cut = tmp_path / f"cut{name[4:]}"
        for length in np.linspace(0, len(content) - 1, 40).astype(int):
            cut.write_bytes(content[:length])
            with pytest.raises(MediaError):
                probe(cut)


def test_an_index_at_the_end_and_matroska_are_also_found_truncated(tmp_path):
    for suffix in ("mp4", "mkv"):
        path = write_raw(tmp_path / f"a.{suffix}", moving_ball(90), [i / 30 for i in range(90)], click(48000, 3.0))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(MediaError, match="truncated"):
            read_clip(path)


def test_a_tag_that_is_no_utf_8_costs_nothing(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        container.metadata["title"] = "un cafe!"
        container.metadata["comment"] = "original size 63x64"
        stream = container.add_stream("libx264", rate=16)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for image in moving_ball(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.count(b"un cafe!") == 1
    (tmp_path / "latin.mp4").write_bytes(content.replace(b"un cafe!", "un caf\u00e9!".encode("latin-1")))
    assert probe(tmp_path / "latin.mp4").num_frames == 3
    clip = read_clip(tmp_path / "latin.mp4")
    assert clip.height == 63  # the tags beside it are still read
    np.testing.assert_array_equal(clip.video, read_clip(tmp_path / "a.mp4").video)


def test_a_picture_and_a_sound_are_no_clips(tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="picture"):
        read_clip(tmp_path / "a.png")
    write_wav(tmp_path / "a.wav", click(16000, 1.0), 16000)
    with pytest.raises(MediaError, match="no video"):
        read_clip(tmp_path / "a.wav")
    info = probe(tmp_path / "a.wav")
    assert (info.has_video, info.num_frames, info.sample_rate, info.num_channels) == (False, 0, 16000, 1)
    assert info.duration_s == info.audio_duration_s == pytest.approx(1.0)


def test_sound_from_another_file(tmp_path):
    write_clip(make_clip(), tmp_path / "a.mp4")
    write_wav(tmp_path / "other.wav", click(44100, 3.0, 1.0, channels=2), 44100)
    clip = read_clip(tmp_path / "a.mp4", audio_path=tmp_path / "other.wav", num_frames=33, sample_rate=16000)
    assert clip.audio.shape == (2, 33000)
    assert click_time(clip.audio[1], 16000) == pytest.approx(1.0, abs=0.001)
    from_mp4 = read_clip(tmp_path / "a.mp4", audio_path=tmp_path / "a.mp4")
    assert from_mp4.num_channels == 1
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(MediaError, match=r"empty\.wav"):
        read_clip(tmp_path / "a.mp4", audio_path=tmp_path / "empty.wav")


def test_a_clip_shorter_than_asked_names_file_and_lengths(tmp_path):
    write_clip(make_clip(num_frames=20), tmp_path / "a.mp4")
    with pytest.raises(MediaError, match=r"a\.mp4: has 20 frames .* 33 \(2\.06 s\)"):
        read_clip(tmp_path / "a.mp4", num_frames=33)
    assert read_clip(tmp_path / "a.mp4", num_frames=21).num_frames == 21


def test_real_clips_reach_the_tiny_geometry():
    names = real_clips()
    assert names
    for path in names:
        info = probe(path)
        clip = read_clip(path, fps=16.0, height=64, width=64, num_frames=33, sample_rate=16000, num_channels=1)
        assert clip.video.shape == (33, 64, 64, 3)
        assert clip.video.std() > 5
        assert clip.has_audio == info.has_audio
        assert clip.audio.shape == ((1, 33000) if info.has_audio else (0, 0))
    for path in real_clips("*.wav"):
        audio, rate = read_wav(path)
        assert audio.shape == (probe(path).num_channels, round(probe(path).audio_duration_s * rate))
        assert 0.05 < np.abs(audio).max() <= 1.0
