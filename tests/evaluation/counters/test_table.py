"""Counter-metrics of run folders: the cache, what is missing, and diversity within a prompt."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from evaluation.counters import read_counters, table
from evaluation.counters.cache import CACHE_NAME
from evaluation.counters.diversity import mean_distances
from media import read_clip, write_clip
from tests.evaluation.counters.sampled_runs import louder, sampled, write_run


@pytest.fixture
def run(tmp_path, tmp_path_factory):
    made = tmp_path_factory.getbasetemp() / "counters_run"
    if not made.exists():
        write_run(made, num_prompts=2, per_prompt=3)
    return shutil.copytree(made, tmp_path / "run")


def test_unchanged_files_are_not_read_again(run, monkeypatch):
    first = read_counters(run)
    assert first.notes == (f"6 clips read, 0 known from {CACHE_NAME}",)
    monkeypatch.setattr(table, "decode_ahead", None)
    second = read_counters(run)
    assert second.notes == (f"0 clips read, 6 known from {CACHE_NAME}",)
    pd.testing.assert_frame_equal(first.values, second.values)


def test_a_changed_file_is_measured_again_and_no_other(run):
    before = read_counters(run).values
    media = run / "candidates" / "media"
    write_clip(louder(read_clip(media / "0_1.mp4", audio_path=media / "0_1.wav")), media / "0_1.mp4")
    after = read_counters(run)
    assert after.notes == (f"1 clips read, 5 known from {CACHE_NAME}",)
    changed = (after.values["loudness"] - before["loudness"]).abs() > 0.5
    assert list(changed[changed].index) == ["p00/1"]
    assert len(pd.read_parquet(run / CACHE_NAME)) == 6  # the row of the former file is gone


def test_an_interrupted_call_continues(run, monkeypatch):
    measure, count = table.measure_counters, iter(range(10))

    def interrupted(*arguments):
        if next(count) == 4:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(table, "measure_counters", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_counters(run)
    monkeypatch.undo()
    assert read_counters(run).notes == (f"2 clips read, 4 known from {CACHE_NAME}",)


def test_absent_and_broken_files_are_named(run):
    media = run / "candidates" / "media"
    (media / "0_0.mp4").unlink()
    (media / "1_2.mp4").write_bytes(b"no film")
    found = read_counters(run)
    assert sorted(found.values.index) == ["p00/1", "p00/2", "p01/0", "p01/1"]
    assert found.notes[1] == "1 of 6 samples have no media file"
    assert found.notes[2].startswith("1 samples cannot be measured, such as p01/2 (")


def test_a_folder_without_media_has_no_values(run):
    shutil.rmtree(run / "candidates" / "media")
    found = read_counters(run)
    assert found.values.empty
    assert not (run / CACHE_NAME).exists()


def test_without_its_wav_the_sound_is_that_of_the_video(run):
    before = read_counters(run).values
    (run / "candidates" / "media" / "0_0.wav").unlink()
    after = read_counters(run).values
    assert after.loc["p00/0", "loudness"] == pytest.approx(before.loc["p00/0", "loudness"], abs=0.5)


def test_a_damaged_cache_is_made_anew(run):
    first = read_counters(run).values
    (run / CACHE_NAME).write_bytes(b"no table")
    pd.testing.assert_frame_equal(read_counters(run).values, first)


def test_where_the_cache_cannot_be_written_values_are_measured_all_the_same(run):
    (run / CACHE_NAME).mkdir()  # no file can have this name
    found = read_counters(run)
    assert len(found.values) == 6
    assert any("are not kept" in note and CACHE_NAME in note for note in found.notes)


def test_latents_that_were_kept_are_measured(run):
    path = run / "candidates" / "candidates.parquet"
    frame = pd.read_parquet(path).assign(latents_path="kept.safetensors")
    frame.to_parquet(path, index=False)
    tensors = {name: np.full(8, size, np.float32) for name, size in (("video", 2), ("audio", 3))}
    save_file(tensors, run / "candidates" / "kept.safetensors")
    values = read_counters(run).values
    assert set(values["video_latent_norm"]) == {2.0}
    assert set(values["audio_latent_norm"]) == {3.0}


def test_equal_samples_have_no_diversity(tmp_path):
    equal = read_counters(
        write_run(tmp_path / "equal", num_prompts=2, per_prompt=3, clip_of=lambda p, k: sampled(p, 0))
    )
    assert (equal.values[["picture_diversity", "sound_diversity"]] == 0.0).all(axis=None)
    single = read_counters(write_run(tmp_path / "single", num_prompts=2, per_prompt=1))
    assert single.values[["picture_diversity", "sound_diversity"]].isna().all(axis=None)


def test_diversity_is_the_mean_pairwise_distance_within_a_prompt():
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(2, 3)) for _ in range(5)]
    groups = np.array([4, 1, 4, 4, 1])
    found = mean_distances(rows, groups)

    def distance(i, j):
        return np.sqrt(((rows[i] - rows[j]) ** 2).mean())

    pairs = [(0, 2), (0, 3), (2, 3)]
    assert found[groups == 4].mean() == pytest.approx(np.mean([distance(*pair) for pair in pairs]))
    assert found[1] == found[4] == pytest.approx(distance(1, 4))
    assert np.isnan(mean_distances([rows[0], None], np.array([0, 0]))).all()
