"""Sizes, tokens and lengths equal the published tables, row for row."""

from __future__ import annotations

import json

import pytest

from model.javisdit.codecs.audio_lengths import (
    num_mel_frames,
    sampling_mel_frames,
    sampling_num_samples,
    training_mel_frames,
)
from model.javisdit.network.sizes import ASPECT_RATIOS, NOMINAL_PIXELS, ClipSize, image_size, nearest_num_frames
from tests.model.javisdit.golden import ROOT, golden_path

SIZE_TABLE = ROOT / "tests" / "golden" / "model" / "size_table.json"


def test_every_row_of_the_published_size_table():
    table = json.loads(SIZE_TABLE.read_text(encoding="utf-8"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert len(rows) == 4 * 17 * 4
    for row in rows:
        assert image_size(row["resolution"], row["aspect"]) == (row["height"], row["width"])
        size = ClipSize(row["frames"], row["height"], row["width"])
        assert (size.padded.height, size.padded.width) == (row["padded_height"], row["padded_width"])
        assert list(size.latent_size) == row["latent"]
        assert list(size.token_grid) == row["token_grid"]
        assert size.num_tokens == row["video_tokens"]


def test_every_row_of_the_published_audio_lengths():
    rows = json.loads(golden_path("media/audio_lengths.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 16
    for row in rows:
        seconds, num_samples = row["duration_s"], row["waveform_samples"]
        assert sampling_num_samples(seconds) == num_samples
        assert training_mel_frames(seconds) == num_mel_frames(num_samples) == row["training_mel_frames"]
        assert sampling_mel_frames(seconds) == num_mel_frames(num_samples, "sampling") == row["mel_frames"]


def test_no_duration_means_the_length_of_the_published_default():
    assert training_mel_frames(10.24) == 1024


def test_names_stand_for_published_sizes():
    assert image_size("480p", "9:16") == (480, 854)  # landscape: height to width
    assert list(NOMINAL_PIXELS) == ["144p", "240p", "360p", "480p"]
    assert len(ASPECT_RATIOS) == 17
    for resolution, num_pixels in NOMINAL_PIXELS.items():
        height, width = image_size(resolution, "9:16")
        assert height * width == pytest.approx(num_pixels, rel=1e-6)


@pytest.mark.parametrize(
    ("seconds", "fps", "num_frames"),
    [(2, 16, 33), (3, 16, 49), (4, 16, 65), (5, 16, 81), (4, 24, 97), (0.01, 16, 1), (35 / 16, 16, 37)],
)
def test_frames_of_a_duration(seconds, fps, num_frames):
    assert nearest_num_frames(seconds, fps) == num_frames


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image_size("720p", "9:16"), "'720p'.*144p, 240p, 360p, 480p"),
        (lambda: image_size("480p", "16:10"), "'16:10'.*3:8.*50:27"),
        (lambda: nearest_num_frames(0.0), "give positive numbers"),
        (lambda: ClipSize(102, 240, 432), "use 101 or 105"),
        (lambda: ClipSize(0, 240, 432), "use 1 or 5"),
        (lambda: ClipSize(33, 0, 432), "positive height"),
        (lambda: ClipSize(33, 240, 426).check_unpadded(), "multiples of 16, such as 240x432"),
        (lambda: num_mel_frames(32_000, "inference"), "'inference': choose one of training, sampling"),
    ],
)
def test_errors_name_what_is_known(call, message):
    with pytest.raises(ValueError, match=message):
        call()
