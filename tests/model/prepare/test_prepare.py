from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_from_disk

from media import AVClip, probe, read_clip, write_clip
from model.data.batches import RowKey
from model.data.buckets import BucketTable
from model.data.clip_encoder import ClipEncoder
from model.data.clip_samples import ClipDataset
from model.data.clip_table import read_clips
from model.data.latent_dataset import LatentDataset
from model.data.on_the_fly import OnTheFlyClips
from model.javisdit.pipeline import JointAVPipeline
from model.prepare import parts as prepare_parts
from model.prepare.actor import write_parts
from model.prepare.command import main, plan, prepare
from model.prepare.config import PrepareConfig
from model.prepare.parts import Parts
from synthetic.make import MakeConfig, make
from tests.model.prepare.fragile import FragileSettings

BUCKETS = {"64x64": {17: {"batch_size": 4}}}


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(prepare_parts, "MIN_ROWS_PER_PART", 2)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Six clips: the second is cut off, the fifth too short for the bucket; the sixth has no sound."""
    folder = tmp_path_factory.mktemp("clips")
    make(MakeConfig(output=folder, num_clips=6))
    files = [folder / "clips" / f"bounce-{seed:07d}.mp4" for seed in range(6)]
    files[1].write_bytes(files[1].read_bytes()[:3000])
    clip = read_clip(files[4])
    write_clip(AVClip(clip.video[:9], clip.fps, clip.audio[:, :9000], clip.sample_rate), files[4])
    write_clip(AVClip(clip.video, clip.fps, np.zeros((0, 0), np.float32), 0), files[5])
    files[5].with_suffix(".wav").unlink(missing_ok=True)
    rows = pd.read_parquet(folder / "prompts.parquet")
    rows.loc[5, "audio_path"] = None
    rows[["prompt_id", "prompt", "video_path", "audio_path"]].to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def settings(table, folder, **changes):
    return PrepareConfig(
        **({"clips": str(table), "output": str(folder), "buckets": BUCKETS, "max_failed": 3} | changes)
    )


@pytest.fixture(scope="module")
def prepared(table, tmp_path_factory):
    """The dataset of an undisturbed run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_parts, "MIN_ROWS_PER_PART", 2)
        folder = tmp_path_factory.mktemp("prepared") / "data"
        prepare(settings(table, folder))
    return folder


def contents(folder):
    names = ("state.json", "dataset_info.json", "failures.parquet", "negative_text.safetensors", "prepare.json")
    paths = [*(folder / name for name in names), *sorted((folder / "data").iterdir())]
    return {path.name: path.read_bytes() for path in paths}


def test_rows_are_what_training_reads(prepared, table):
    dataset = LatentDataset.load(prepared)
    samples = [dataset[RowKey(row, 0)] for row in range(len(dataset))]
    assert [sample.clip_id for sample in samples] == ["bounce-0000000", "bounce-0000002", "bounce-0000003"]
    assert {tuple(sample.latents["video"].shape) for sample in samples} == {(8, 5, 8, 8)}
    pipeline = JointAVPipeline.from_pretrained("tiny")
    dataset.check_network(pipeline.transformer.config)
    text = pipeline.encode_text([read_clips(table)[2].prompt]).trimmed()[0]
    torch.testing.assert_close(samples[1].text, text, rtol=2e-3, atol=2e-3)
    assert torch.equal(dataset.negative_text, pipeline.encode_text([pipeline.defaults.negative_prompt]).embeds[0])
    assert load_from_disk(str(prepared))[0]["fps"] == 16.0  # also without this package


def test_bad_clips_are_listed_and_stop_nothing(prepared):
    rows = pq.read_table(prepared / "failures.parquet").to_pylist()
    assert [row["clip_id"] for row in rows] == ["bounce-0000001", "bounce-0000004", "bounce-0000005"]
    assert rows[0]["path"] == "clips/bounce-0000001.mp4"
    for row, reason in zip(rows, ("truncated", "9 frames at 16 fps", "no sound"), strict=True):
        assert reason in row["reason"]
    summary = json.loads((prepared / "summary.json").read_text())
    assert (summary["wanted"], summary["done"], summary["failed"], summary["skipped"]) == (6, 3, 3, 0)
    assert summary["settings"]["seed"] == 42


def test_on_the_fly_gives_the_same_latents_at_epoch_0(prepared, table, tmp_path):
    clips = ClipDataset(read_clips(table), BucketTable.from_dict(BUCKETS))
    encoder = ClipEncoder(JointAVPipeline.from_pretrained("tiny"))
    live = OnTheFlyClips(clips, encoder, tmp_path / "failures.jsonl")
    encoded = live.encode([live[RowKey(row, 0)] for row in (0, 2, 3)])
    dataset = LatentDataset.load(prepared)
    for row, sample in enumerate(encoded):
        for name, latents in dataset[RowKey(row, 0)].latents.items():
            torch.testing.assert_close(sample.latents[name], latents, rtol=2e-3, atol=2e-3)


def test_finished_run_is_left_alone_and_needs_no_torch(prepared, table):
    before = contents(prepared)
    code = (
        "import sys; from model.prepare.command import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules and 'datasets' not in sys.modules; sys.exit(status)"
    )
    flags = ["--clips", str(table), "--output", str(prepared), "--buckets", json.dumps(BUCKETS)]
    result = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr  # three failures, and none may fail by default
    assert "prepare: wanted 6, done 3 (skipped 3), failed 3" in result.stdout
    assert "truncated" in result.stdout
    assert contents(prepared) == before


def test_killed_run_goes_on_where_it_stopped(prepared, table, tmp_path):
    code = (
        "import os, signal, sys; from model.prepare import command, parts, rows\n"
        "parts.MIN_ROWS_PER_PART = 2; row = rows.RowEncoder.row\n"
        "def killed_at_3(self, number):\n"
        "    if number == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return row(self, number)\n"
        "rows.RowEncoder.row = killed_at_3; command.main(sys.argv[1:])"
    )
    flags = ["--clips", str(table), "--output", str(tmp_path / "data"), "--buckets", json.dumps(BUCKETS)]
    result = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL
    with pytest.raises(ValueError, match="holds no prepared clips"):
        LatentDataset.load(tmp_path / "data")
    assert prepare(settings(table, tmp_path / "data")).skipped == 1
    assert contents(tmp_path / "data") == contents(prepared)


def test_ray_makes_the_same_bytes(prepared, table, tmp_path, ray_session):
    summary = prepare(settings(table, tmp_path / "data", num_workers=1))
    assert (summary.done, summary.failed) == (3, 3)
    assert contents(tmp_path / "data") == contents(prepared)


def test_clip_that_kills_its_workers_is_given_up(tmp_path, ray_session):
    parts = Parts(tmp_path, 4, 2)
    parts.trying(2).parent.mkdir()
    parts.trying(2).write_text("2")  # of a run that was killed: no death of this one
    assert sorted(write_parts(parts, list(parts.starts), FragileSettings(), 1, 1, 0)) == [0, 2]
    assert [(row["clip_id"], row["reason"]) for row in parts.failures()] == [
        ("0", "fine"),
        ("1", "fine"),
        ("2", "fine"),
        ("3", "given up"),
    ]
    assert not list((tmp_path / "data").glob(".tmp-trying*")) + list((tmp_path / "data").glob(".tmp-deaths*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (FragileSettings(dies_at_start=True), "before they read a clip .*more memory or GPU"),
        (FragileSettings(mistake="buckets is {}: give one."), "A worker failed: buckets is {}: give one."),
    ],
)
def test_workers_that_cannot_work_end_the_run(settings, message, tmp_path, ray_session):
    with pytest.raises(ValueError, match=message):
        list(write_parts(Parts(tmp_path, 4, 2), [0, 2], settings, 1, 1, 0))


def test_shards_make_the_dataset_of_one_run(prepared, table, tmp_path):
    folder = tmp_path / "data"
    first = prepare(settings(table, folder, shard="1/2"))
    assert (first.wanted, first.done) == (2, 2)
    assert not (folder / "summary.json").exists()
    second = prepare(settings(table, folder, shard="0/2"))
    assert (second.wanted, second.done, second.skipped) == (6, 3, 2)
    assert contents(folder) == contents(prepared)


def test_other_settings_and_foreign_folders_are_refused(prepared, table, tmp_path):
    with pytest.raises(ValueError, match=r"seed \(42 -> 43\)"):
        prepare(settings(table, prepared, seed=43))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        prepare(settings(table, tmp_path))
    with pytest.raises(ValueError, match="shard is '4/4'"):
        settings(table, tmp_path, shard="4/4")


def test_repaired_clips_are_tried_again(table, tmp_path):
    rows = pd.read_csv(table).iloc[:3]
    rows["video_path"] = [str(table.parent / path) for path in rows["video_path"]]
    rows.loc[1, "video_path"] = str(tmp_path / "repaired.mp4")
    rows.drop(columns="audio_path").to_csv(tmp_path / "t.csv", index=False)
    assert main(["--clips", str(tmp_path / "t.csv"), "--output", str(tmp_path / "data")]) == 1
    (tmp_path / "repaired.mp4").write_bytes((table.parent / "clips" / "bounce-0000003.mp4").read_bytes())
    summary = prepare(settings(tmp_path / "t.csv", tmp_path / "data", buckets=None, retry_failed=True))
    assert (summary.done, summary.skipped, summary.failed) == (3, 1, 0)
    assert len(LatentDataset.load(tmp_path / "data")) == 3


def test_no_usable_clip_is_an_error(tmp_path, capfd):
    (tmp_path / "t.csv").write_text("path,text\nnone.mp4,a ball\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".tmp-1-dead").touch()  # of a run that was killed at once: the folder is still new
    assert main(["--clips", str(tmp_path / "t.csv"), "--output", str(tmp_path / "data")]) == 2
    assert "None of the 1 clips can be used, such as none.mp4: cannot be read" in capfd.readouterr().err


def test_dry_run_looks_and_writes_nothing(table, tmp_path):
    lines = plan(settings(table, tmp_path / "data", dry_run=True))
    assert "64x64, 17 frames: 4 clips" in lines
    assert "in no bucket: 1 clips" in lines
    assert any("unusable: bounce-0000001" in line for line in lines)
    assert "wanted 6, done 0, left 6" in lines[-1]
    assert not (tmp_path / "data").exists()


def test_prepared_clips_can_be_looked_at(prepared, table):
    for count in (1, 2):
        prepare(settings(table, prepared, check=count))
        videos = sorted((prepared / "check").glob("*.mp4"))
        assert len(videos) == count  # the same one, and another
    names = [f"{row:05d}-{clip_id}" for row, clip_id in enumerate(load_from_disk(str(prepared))["clip_id"])]
    assert {video.stem for video in videos} < set(names)
    video = videos[0]
    info = probe(video)
    assert (info.num_frames, info.height, info.num_channels) == (17, 64, 1)
    assert video.with_suffix(".wav").is_file()
    shown = read_clip(video).video.astype(float)
    start = min(
        np.abs(shown - read_clip(table.parent / "clips" / video.name.split("-", 1)[1]).video[s : s + 17]).mean()
        for s in range(17)
    )
    assert start < 15  # of 255: the tiny codec's own error


def test_sound_alone_for_stage_1(table, tmp_path):
    folder = tmp_path / "sound"
    prepare(settings(table, folder, audio_only=True, check=1))
    dataset = LatentDataset.load(folder, ("audio",))
    row = load_from_disk(str(folder))[0]
    assert (row["video_latents"], row["video_latents_shape"], row["fps"]) == ([], [], 24.0)
    assert len(dataset) == 4  # the first, third and fourth, and the one whose sound is whole beside a cut-off picture
    assert len(list((folder / "check").glob("*.wav"))) == 1
    with pytest.raises(ValueError, match="clips without video"):
        LatentDataset.load(folder)


def test_help_explains_the_flags(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    for flag in ("--clips", "--shard", "--num_workers", "--max_failed", "--check"):
        assert flag in shown
