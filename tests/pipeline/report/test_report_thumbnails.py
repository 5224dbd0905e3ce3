"""Thumbnails of the clips: made once, in the clip's own shape, and only for clips that can be decoded."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from media import read_clip, write_clip
from pipeline.report.command import ReportConfig, build_report, main, run_report
from pipeline.report.thumbnails import make_thumbnails
from tests.pipeline.report.report_helpers import pairs_table, tiny_clip, write_run

RANKING = {"inputs": {"strategy": "modality_micro"}}


def folders(run_dir):
    return sorted(path.name for path in (run_dir / "report").iterdir() if path.is_dir())


def modified(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.webp")}


def test_every_clip_gets_a_small_picture_of_its_first_frame(tmp_path):
    pairs = pairs_table(6)
    run_dir = write_run(tmp_path, pairs)
    build_report(run_dir, thumbnail_size=32)
    for side in ("chosen", "rejected"):
        for path in pairs[f"{side}_video_path"]:
            with Image.open(run_dir / "report" / "thumbnails-32" / f"{path.removeprefix('../')}.webp") as picture:
                frame = Image.fromarray(read_clip(run_dir / "pairs" / path).video[0]).resize((32, 32))
                assert picture.size == (32, 32)
                assert np.abs(np.asarray(picture, dtype=float) - np.asarray(frame)).mean() < 8


def test_a_wide_clip_keeps_its_shape_and_a_small_one_is_not_enlarged(tmp_path):
    clip = tiny_clip(0)
    wide = type(clip)(video=clip.video.repeat(2, axis=2), fps=clip.fps, audio=clip.audio, sample_rate=clip.sample_rate)
    write_clip(wide, tmp_path / "wide.mp4")
    for size, shape in ((64, (64, 32)), (500, (128, 64))):
        assert make_thumbnails(["wide.mp4"], tmp_path, tmp_path / f"of-{size}", size) == {"wide.mp4"}
        with Image.open(tmp_path / f"of-{size}" / "wide.mp4.webp") as picture:
            assert picture.size == shape


def test_pictures_are_made_once_and_again_for_a_newer_clip(tmp_path):
    pairs = pairs_table(4)
    build_report(write_run(tmp_path, pairs))
    before = modified(tmp_path / "report")
    assert before
    build_report(tmp_path)
    assert modified(tmp_path / "report") == before

    clip = tmp_path / "pairs" / pairs["chosen_video_path"][0]
    os.utime(clip, (clip.stat().st_atime, clip.stat().st_mtime + 60))
    build_report(tmp_path)
    changed = {path for path, time in modified(tmp_path / "report").items() if time != before[path]}
    assert [path.name for path in changed] == [clip.name + ".webp"]


def test_clips_without_a_picture_are_counted_and_tried_again(tmp_path, capsys):
    pairs = pairs_table(3)
    write_run(tmp_path, pairs, ranking=RANKING)
    clip = tmp_path / "pairs" / pairs["rejected_video_path"][1]
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) // 3])
    config = ReportConfig(output_dir=tmp_path)
    assert run_report(config).skipped == 0
    assert "cannot be decoded: 1\n" in capsys.readouterr().out

    clip.write_bytes(whole)
    assert run_report(config).skipped == 0
    assert "without a thumbnail" not in capsys.readouterr().out
    assert run_report(config).skipped == 3  # now there is nothing left to do
    assert run_report(ReportConfig(output_dir=tmp_path, title="Other")).skipped == 0


def test_thumbnails_can_be_left_out(tmp_path):
    write_run(tmp_path, pairs_table(2))
    assert main(["--output_dir", str(tmp_path), "--thumbnail_size", "0"]) == 0
    assert folders(tmp_path) == []
    assert json.loads((tmp_path / "report" / "summary.json").read_text())["settings"]["thumbnail_size"] == 0


def test_an_invalid_size_is_refused():
    with pytest.raises(ValueError, match=r"thumbnail_size is -1, but must be from 1 to 1024"):
        ReportConfig(output_dir="x", thumbnail_size=-1)
