from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

import rewards.decode as decode_module
from media import AVClip, read_clip, read_sound, write_clip, write_wav
from rewards import ClipFile, Prompt, Reward, RewardSuite
from tests.rewards.score_fakes import FPS, MODULE, make_clip


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
        decode_module, "read_clip", lambda *args, **kwargs: calls.append(args) or read_clip(*args, **kwargs)
    )
    RewardSuite([Shade({"shade 80": RuntimeError("no")}), Loudness()], batch_size=3).score_files(files)
    assert len(calls) == len(files)  # although two rewards looked, one of them twice


def test_only_what_the_rewards_need_is_decoded(files, monkeypatch):
    """Damage each half of the decoder: scores of rewards that do not need that half stay as they are."""
    both = RewardSuite([Shade(), Loudness()]).score_files(files)

    def fail(*args):
        raise AssertionError("decoded")

    with monkeypatch.context() as patch:
        patch.setattr("media.read._read_video", fail)
        rows = RewardSuite([Loudness()]).score_files(files)
    assert [row.scores["peak"] for row in rows] == [row.scores["peak"] for row in both]
    with monkeypatch.context() as patch:
        patch.setattr("media.read.read_wav", fail)
        patch.setattr("media.read._decode_audio", fail)
        rows = RewardSuite([Shade()]).score_files(files)
    assert [row.scores["shade"] for row in rows] == [row.scores["shade"] for row in both]


def test_a_clip_without_picture_is_as_long_and_sounds_the_same(files):
    for audio_path in (files[0].audio_path, None):
        whole = read_clip(files[0].video_path, audio_path=audio_path)
        sound = read_sound(files[0].video_path, audio_path=audio_path)
        assert np.array_equal(sound.audio, whole.audio)
        assert sound.duration_s == pytest.approx(whole.duration_s)
        assert sound.sample_rate == whole.sample_rate
        assert sound.video.shape == (1, 1, 1, 3)


def test_a_file_of_sound_alone_serves_rewards_that_only_listen(files, tmp_path):
    write_wav(tmp_path / "alone.wav", make_clip(50).audio, 16_000)
    alone = ClipFile("alone", tmp_path / "alone.wav", None, Prompt("p", "x"))
    (heard,) = RewardSuite([Loudness()]).score_files([alone])
    assert heard.scores["peak"] == pytest.approx(0.05, abs=1e-5)
    (seen,) = RewardSuite([Shade()]).score_files([alone])
    assert "no video stream" in seen.error


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_change_neither_scores_nor_order(files, tmp_path, batch_size):
    write_clip(make_clip(100, size=96), tmp_path / "other.mp4")  # another size in the same batch
    mixed = [*files, ClipFile("other", tmp_path / "other.mp4", None, Prompt("o", "x"))]
    reward = Shade()
    rows = list(RewardSuite([reward], batch_size=batch_size, num_decoders=3).iter_scores(iter(mixed)))
    assert [row.candidate_id for row in rows] == [file.candidate_id for file in mixed]
    assert rows == RewardSuite([Shade()]).score_files(mixed)
    assert max(reward.batch_sizes) == min(batch_size, len(mixed))


def test_the_next_batch_is_decoded_while_one_is_scored_and_no_further(files, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        decode_module, "read_clip", lambda path, **kwargs: decoded.append(path) or read_clip(path, **kwargs)
    )
    seen = []

    class Slow(Shade):
        def score(self, clips, prompts):
            deadline = time.monotonic() + 10
            while len(decoded) < min(len(seen) + 2, len(files)) and time.monotonic() < deadline:
                time.sleep(0.01)
            seen.append(len(decoded))
            return super().score(clips, prompts)

    RewardSuite([Slow()], batch_size=1).score_files(files)
    assert seen == [2, 3, 4, 4]


def test_a_caller_who_stops_half_way_leaves_no_thread_behind(files):
    rows = RewardSuite([Shade()], batch_size=1).iter_scores(files)
    next(rows)
    del rows
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_load_takes_names_groups_of_them_and_weights(tmp_path):
    (tmp_path / "weighted.txt").write_text("3")
    names = [f"{MODULE}:Shade", f"{MODULE}:Weighted"]
    suite = RewardSuite.load(names, weights=str(tmp_path), protocol="javisbench")
    assert suite.versions == {"shade": "1", "weighted": "1+javisbench"}
    assert suite.rewards[1].value == -3
    with pytest.raises(ValueError, match="needs weights"):
        RewardSuite.load(names)
    with pytest.raises(ValueError, match="named twice"):
        RewardSuite.load([*names, names[0]])


@pytest.mark.parametrize("setting", ["batch_size", "num_decoders"])
def test_settings_below_one_are_refused(setting):
    with pytest.raises(ValueError, match=f"{setting} is 0"):
        RewardSuite([Shade()], **{setting: 0})


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


def test_an_error_of_the_gpu_itself_is_no_clips_fault(files):
    """Every clip after it would fail as well, so it must not end as the error of them all."""
    reward = Shade({"shade 120": RuntimeError("CUDA error: an illegal memory access was encountered")})
    with pytest.raises(RuntimeError, match="illegal memory access"):
        RewardSuite([reward], batch_size=1).score_files(files)
    assert reward.batch_sizes == [1, 1, 1]


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


def test_rewards_that_share_a_name_are_refused():
    class Namesake(Shade):
        columns = ("other",)

    with pytest.raises(ValueError, match=r"'shade' and 'shade' both have the name 'shade'.*Choose one"):
        RewardSuite([Shade(), Namesake()])


@pytest.mark.parametrize("needs", [frozenset({"video"}), frozenset({"audio"})])
def test_whatever_a_file_does_to_the_decoder_costs_its_own_row(files, monkeypatch, needs):
    """As clips that memory does not hold do (MemoryError)."""
    for name in ("read_clip", "read_sound"):
        read = getattr(decode_module, name)

        def failing(path, read=read, **options):
            if path == files[1].video_path:
                raise MemoryError("no room for 40 GiB")
            return read(path, **options)

        monkeypatch.setattr(decode_module, name, failing)
    reward = Shade()
    reward.needs = needs
    rows = RewardSuite([reward], batch_size=2).score_files(files)
    assert [row.error is None for row in rows] == [True, False, True, True]
    assert "1.mp4: cannot be decoded: MemoryError: no room for 40 GiB" in rows[1].reasons["shade"]


def test_no_files_no_rows():
    assert RewardSuite([Shade()]).score_files([]) == []
