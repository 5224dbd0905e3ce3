import numpy as np
import pytest
import torch

import rewards.suite as suite_module
from media import AVClip, read_clip, write_clip
from rewards import ClipFile, Prompt, Reward, RewardSuite

FPS, SAMPLE_RATE, NUM_FRAMES = 16.0, 16_000, 9


def make_clip(shade):
    num_samples = round(NUM_FRAMES / FPS * SAMPLE_RATE)
    tone = 0.001 * shade * np.sin(np.arange(num_samples) * 0.2)
    video = np.full((NUM_FRAMES, 64, 64, 3), shade, dtype=np.uint8)
    return AVClip(video, FPS, tone[None].astype(np.float32), SAMPLE_RATE)


@pytest.fixture
def files(tmp_path):
    rows = []
    for index, shade in enumerate((40, 80, 120, 160)):
        write_clip(make_clip(shade), tmp_path / f"{index}.mp4")
        prompt = Prompt(f"p{index}", f"shade {shade}")
        rows.append(ClipFile(f"p{index}/0", tmp_path / f"{index}.mp4", tmp_path / f"{index}.wav", prompt))
    return rows


class Shade(Reward):
    name, version, licence = "shade", "1", "none"
    columns = ("shade",)
    higher_is_better = {"shade": True}  # noqa: RUF012
    needs = frozenset({"video"})

    def __init__(self, special=None):
        self.special = special or {}  # prompt text -> value to return, or exception to raise
        self.batch_sizes = []

    def score(self, clips, prompts):
        self.batch_sizes.append(len(clips))
        values = []
        for clip, prompt in zip(clips, prompts, strict=True):
            value = self.special.get(prompt.prompt, float(clip.video.mean()))
            if isinstance(value, Exception):
                raise value
            values.append(value)
        return {"shade": torch.tensor(values, dtype=torch.float32)}


class Loudness(Reward):
    name, version, licence = "loudness", "2", "none"
    columns = ("loudness", "peak")
    higher_is_better = {"loudness": True, "peak": False}  # noqa: RUF012
    needs = frozenset({"audio"})

    def score(self, clips, prompts):
        peaks = torch.tensor([float(np.abs(clip.audio).max(initial=0)) if clip.has_audio else np.nan for clip in clips])
        return {"loudness": peaks * 2, "peak": peaks}


def test_every_reward_scores_every_clip(files):
    suite = RewardSuite([Shade(), Loudness()])
    rows = suite.score_files(files)
    assert [row.candidate_id for row in rows] == [file.candidate_id for file in files]
    assert suite.columns == ("shade", "loudness", "peak")
    assert suite.versions == {"shade": "1", "loudness": "2"}
    assert suite.higher_is_better["peak"] is False
    for row, shade in zip(rows, (40, 80, 120, 160), strict=True):
        assert row.error is None
        assert row.reasons == {}
        assert row.scores["shade"] == pytest.approx(shade, abs=2)


def test_each_clip_is_decoded_once(files, monkeypatch):
    calls = []
    monkeypatch.setattr(
        suite_module, "read_clip", lambda *args, **kwargs: calls.append(args) or read_clip(*args, **kwargs)
    )
    RewardSuite([Shade({"shade 80": RuntimeError("no")}), Loudness()]).score_files(files)
    assert len(calls) == len(files)  # although two rewards looked, one of them twice


def test_sound_comes_from_the_lossless_file(files):
    suite = RewardSuite([Loudness()])
    wav = suite.score_files(files)[0].scores["peak"]
    assert wav == pytest.approx(0.04, abs=1e-5)
    container = ClipFile("x", files[0].video_path, None, files[0].prompt)
    assert suite.score_files([container])[0].scores["peak"] != pytest.approx(wav, abs=1e-5)


def test_bad_files_cost_only_their_own_rows(files, tmp_path):
    good = RewardSuite([Shade()]).score_files(files)
    (tmp_path / "1.mp4").write_bytes((tmp_path / "1.mp4").read_bytes()[:200])
    (tmp_path / "2.mp4").unlink()
    rows = RewardSuite([Shade()]).score_files(files)
    for index in (1, 2):
        assert rows[index].scores == {"shade": None}
        assert f"{index}.mp4" in rows[index].error
        assert rows[index].reasons["shade"] == rows[index].error
    assert [rows[0], rows[3]] == [good[0], good[3]]


def test_undefined_is_null_with_a_reason_and_no_error(files):
    row = RewardSuite([Shade({"shade 80": float("nan")})]).score_files(files)[1]
    assert row.scores == {"shade": None}
    assert row.error is None
    assert "not defined by reward 'shade'" in row.reasons["shade"]


def test_a_clip_without_sound_says_so(files, tmp_path):
    silent = AVClip(make_clip(90).video, FPS, np.zeros((0, 0), np.float32), 0)
    write_clip(silent, tmp_path / "silent.mp4", wav=False)
    row = RewardSuite([Loudness()]).score_files([ClipFile("s", tmp_path / "silent.mp4", None, Prompt("p", "x"))])[0]
    assert row.error is None
    assert "no audio track" in row.reasons["peak"]


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_an_infinite_score_names_clip_and_reward(files, value):
    rows = RewardSuite([Shade({"shade 80": value}), Loudness()]).score_files(files)
    assert rows[1].scores["shade"] is None
    assert "'shade'" in rows[1].error
    assert "'p1/0'" in rows[1].error
    assert rows[1].scores["peak"] is not None  # the other reward's score stands
    assert all(row.error is None for row in (rows[0], rows[2], rows[3]))


def test_a_poison_clip_fails_alone(files):
    reward = Shade({"shade 120": RuntimeError("boom")})
    rows = RewardSuite([reward]).score_files(files)
    assert reward.batch_sizes == [4, 1, 1, 1, 1]
    assert rows[2].scores == {"shade": None}
    assert "'shade' failed on 'p2/0': RuntimeError: boom" in rows[2].error
    clean = RewardSuite([Shade()]).score_files(files)
    assert [rows[i] for i in (0, 1, 3)] == [clean[i] for i in (0, 1, 3)]


def test_a_reward_that_returns_the_wrong_shape_is_told_so(files):
    class Wrong(Shade):
        def score(self, clips, prompts):
            return {"shade": torch.zeros(len(clips), 1)}

    rows = RewardSuite([Wrong()]).score_files(files)
    assert all("shape (1, 1) for 1 clips; return (B,)" in row.error for row in rows)


def test_rewards_that_share_a_column_are_refused():
    class Other(Shade):
        name = "other"

    with pytest.raises(ValueError, match=r"'shade' and 'other' both yield the column 'shade'.*Choose one"):
        RewardSuite([Shade(), Other()])


def test_no_files_no_rows():
    assert RewardSuite([Shade()]).score_files([]) == []
