"""Rewards that look at some frames only: scored from a clip of these alone, they give what the whole clip gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import media.read
from media import AVClip, write_clip
from rewards import ClipFile, Prompt, Reward, RewardSuite
from rewards.videoalign import VideoAlignReward
from synthetic.captions import caption
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed
from tests.rewards.imagebind import small_imagebind
from tests.rewards.synchformer import small_synchformer
from tests.rewards.videoalign.videoalign_folder import write_folder


@pytest.fixture(scope="module")
def rewards(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("videoalign") / "VideoReward")
    return {
        "videoalign": VideoAlignReward.load(str(folder)),
        "imagebind": small_imagebind.small_reward(),
        "synchformer": small_synchformer.small_reward(),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A clip of Bounce, and one of the size that generators make: 240p, 65 frames."""
    folder = tmp_path_factory.mktemp("clips")
    scene = scene_from_seed(3)
    coarse = np.random.default_rng(0).integers(0, 256, (65, 30, 54, 3), dtype=np.uint8)
    sound = np.random.default_rng(1).uniform(-0.3, 0.3, (1, 65_000)).astype(np.float32)
    clips = {"bounce": render_clip(scene), "real": AVClip(coarse.repeat(8, 1).repeat(8, 2), 16.0, sound, 16_000)}
    for name, clip in clips.items():
        write_clip(clip, folder / f"{name}.mp4")
    return [
        ClipFile(name, folder / f"{name}.mp4", folder / f"{name}.wav", Prompt(name, caption(scene))) for name in clips
    ]


@pytest.fixture
def num_converted(monkeypatch):
    calls = []
    to_rgb = media.read.to_rgb
    monkeypatch.setattr(media.read, "to_rgb", lambda *frame: calls.append(1) or to_rgb(*frame))
    return lambda: len(calls)


def scores(chosen, files):
    rows = RewardSuite(chosen).score_files(files)
    assert [row.error for row in rows] == [None] * len(files)
    return [row.scores for row in rows]


@pytest.mark.parametrize("names", [["videoalign"], ["imagebind"], ["videoalign", "imagebind"]])
def test_scores_are_those_of_the_whole_clip(rewards, files, monkeypatch, num_converted, names):
    chosen = [rewards[name] for name in names]
    some = scores(chosen, files)
    assert num_converted() < 30  # of 33 and 65
    for reward in chosen:
        monkeypatch.setattr(type(reward), "frames", Reward.frames)
    assert some == scores(chosen, files)
    assert num_converted() > 98


def test_a_reward_that_looks_at_all_frames_gets_them_beside_one_that_does_not(rewards, files, num_converted):
    both = scores([rewards["videoalign"], rewards["synchformer"]], files)
    assert num_converted() == 33 + 65
    alone = scores([rewards["synchformer"]], files)
    assert [row["desync"] for row in both] == [row["desync"] for row in alone]


class Pixels(Reward):
    """How many of the frames are not black."""

    name, version, licence = "pixels", "1", "none"
    columns = ("pixels",)
    higher_is_better = {"pixels": True}  # noqa: RUF012
    needs = frozenset({"video"})

    def score(self, clips, prompts):
        return {"pixels": torch.tensor([float(clip.video.any(axis=(1, 2, 3)).sum()) for clip in clips])}


class EndsOnly(Pixels):
    name, columns = "ends", ("ends",)
    higher_is_better = {"ends": True}  # noqa: RUF012

    def frames(self, num_frames, fps):
        return [0, num_frames - 1]

    def score(self, clips, prompts):
        return {"ends": super().score(clips, prompts)["pixels"]}


class Heard(EndsOnly):
    name, needs = "heard", frozenset({"audio"})
    columns = ("heard",)
    higher_is_better = {"heard": True}  # noqa: RUF012

    def frames(self, num_frames, fps):
        raise AssertionError("it needs no picture")

    def score(self, clips, prompts):
        return {"heard": torch.tensor([float(np.abs(clip.audio).max()) for clip in clips])}


def test_rewards_of_your_own_choose_too(files):
    assert [row["ends"] for row in scores([EndsOnly()], files)] == [2, 2]
    assert [row["ends"] for row in scores([EndsOnly(), Pixels()], files)] == [33, 65]


def test_a_reward_that_only_listens_is_not_asked(files, num_converted):
    alone = scores([Heard()], files)
    assert num_converted() == 0
    beside = scores([Heard(), EndsOnly()], files)
    assert num_converted() == 4
    assert [row["heard"] for row in beside] == [row["heard"] for row in alone]


@pytest.mark.parametrize(("num_frames", "fps"), [(1, 16.0), (3, 0.4)])
def test_a_clip_that_a_reward_cannot_look_at_costs_the_others_nothing(rewards, tmp_path, num_frames, fps):
    video = np.full((num_frames, 40, 56, 3), 90, np.uint8)
    sound = np.full((1, round(num_frames / fps * 16_000)), 0.1, np.float32)
    write_clip(AVClip(video, fps, sound, 16_000), tmp_path / "a.mp4")
    file = ClipFile("a", tmp_path / "a.mp4", tmp_path / "a.wav", Prompt("a", "a ball"))
    suite = RewardSuite([rewards["videoalign"], rewards["imagebind"], EndsOnly()])
    (row,) = suite.score_files([file])
    assert row.scores["ends"] is not None
    assert "reward '" in row.error
