"""All four learned rewards together, with the shipped tiny weights, on real files."""

from __future__ import annotations

import math
import os
from collections import Counter

import pytest

import media.read
from media import write_clip
from rewards import ClipFile, Prompt, RewardSuite
from synthetic.captions import caption
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed
from tests.golden_files import real_clips


@pytest.fixture(scope="module")
def suite():
    return RewardSuite.load(["learned"], weights="tiny", batch_size=3)


@pytest.fixture
def bounce_files(tmp_path):
    files = []
    for seed in range(5):
        scene = scene_from_seed(seed)
        path = tmp_path / f"{seed}.mp4"
        write_clip(render_clip(scene), path)
        files.append(ClipFile(str(seed), path, path.with_suffix(".wav"), Prompt(str(seed), caption(scene))))
    return files


def test_all_four_together_open_each_picture_once(suite, bounce_files, monkeypatch):
    opened = Counter()
    read_video = media.read._read_video

    def counting(path, *args):
        opened[os.fspath(path)] += 1
        return read_video(path, *args)

    monkeypatch.setattr(media.read, "_read_video", counting)
    rows = suite.score_files(bounce_files)
    assert opened == {os.fspath(file.video_path): 1 for file in bounce_files}
    assert all(row.error is None and None not in row.scores.values() for row in rows)


def test_scores_do_not_depend_on_the_batch(suite, bounce_files):
    together = suite.score_files(bounce_files)
    alone = [suite.score_files([file])[0] for file in bounce_files]
    for one, other in zip(together, alone, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def test_real_clips_are_scored_or_say_why_not(suite):
    files = [
        ClipFile(path.name, path, None, Prompt(path.name, "a dog barks at a passing car")) for path in real_clips()
    ]
    for row in suite.score_files(files):
        assert row.error is None
        for column, score in row.scores.items():
            assert (score is not None and math.isfinite(score)) or row.reasons[column]
        assert row.scores["visual_quality"] is not None
