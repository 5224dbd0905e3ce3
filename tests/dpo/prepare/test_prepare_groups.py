"""Preparation of groups of scored candidates: rows, failures, kills, and what is refused."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_from_disk

from core.lineage import Lineage, PreferenceTraining, RewardUse, read_lineage
from core.schema import CANDIDATES, SCORES, read_table
from core.storage import upload
from dpo.data.dataset import PairDataset
from dpo.data.group_dataset import GroupDataset
from dpo.data.groups import RewardColumn
from dpo.prepare.command import main, plan, prepare
from dpo.prepare.config import PrepareConfig
from media.read import read_clip
from model.javisdit.codecs.latents import AVLatents
from model.javisdit.pipeline import JointAVPipeline
from model.prepare import parts as prepare_parts
from tests.dpo.dpo_pipeline import REWARDS, save_pipeline, save_run, save_tables
from tests.dpo.prepare.test_prepare import contents


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config(tmp_path, model):
    run = save_run(tmp_path / "run", model)
    return PrepareConfig(groups=str(run), model=str(model), output=str(tmp_path / "data"))


def tables(run):
    """Return the rows of both tables of a run, scores as an array (N, rewards) with NaN where they failed."""
    candidates = read_table(Path(run) / "candidates" / "candidates.parquet", CANDIDATES, "").to_pylist()
    scores = read_table(Path(run) / "scores" / "scores.parquet", SCORES, "").select(list(REWARDS)).to_pandas()
    return candidates, scores.to_numpy(copy=True)


def media(config):
    return Path(config.groups) / "candidates" / "media"


def failures(config):
    return {
        row["candidate_id"]: row["reason"]
        for row in pq.read_table(Path(config.output) / "failures.parquet").to_pylist()
    }


def test_a_row_holds_a_candidate_with_its_scores_and_its_origin(config, model):
    summary = prepare(config)
    assert (summary.wanted, summary.done, summary.failed) == (8, 8, 0)
    frame = load_from_disk(config.output).to_pandas()
    candidates, scores = tables(config.groups)
    assert list(frame["candidate_id"]) == [row["candidate_id"] for row in candidates]
    assert list(frame["prompt_id"]) == ["p0"] * 3 + ["p1"] * 3 + ["p2"] * 2
    assert np.array_equal(frame[list(REWARDS)].to_numpy(), scores)
    assert list(frame["seed"]) == [row["seed"] for row in candidates]
    assert set(frame["model"]) == {"weights 0123"}
    assert set(frame["guidance_scale"]) == {1.0}
    assert frame["num_inference_steps"].isna().all()  # left to the model's default
    assert not frame["is_ground_truth"].any()
    row = frame.iloc[4]
    latents = AVLatents.load(media(config) / "p1-1.safetensors")
    assert np.array_equal(row["video_latents"], latents.video.half().flatten().numpy())
    assert list(row["audio_latents_shape"]) == list(latents.audio.shape)
    assert (row["num_frames"], row["height"], row["width"], row["fps"]) == (9, 32, 32, 16.0)
    text = JointAVPipeline.from_pretrained(model).encode_text(["a red ball"]).trimmed()[0]
    np.testing.assert_allclose(row["text_embeds"].reshape(row["text_length"], -1), text, rtol=2e-3, atol=2e-3)


def test_directions_lineage_and_encoders_lie_beside_the_rows(config, tmp_path):
    prepare(config)
    dataset = GroupDataset.load(config.output)
    assert dataset.rewards == {
        "visual_quality": RewardColumn(True, "video"),
        "audio_quality": RewardColumn(True, "audio"),
        "desync": RewardColumn(False, "audio_video"),
        "loudness": RewardColumn(False, None),
    }
    uses = RewardUse("tiny", "7", ("visual_quality", "audio_quality", "desync")), RewardUse("own", "7", ("loudness",))
    assert read_lineage(Path(config.output)) == Lineage((PreferenceTraining("rewards", uses),))
    dataset.check_model(config.model)
    with pytest.raises(ValueError, match="was made by the codecs and the text encoder of"):
        dataset.check_model(save_pipeline(tmp_path / "other", seed=1))
    assert dataset.negative_text is not None


def test_a_failed_score_is_nan_and_costs_no_row(config):
    candidates, scores = tables(config.groups)
    scores[4, 2] = math.nan
    save_tables(Path(config.groups), candidates, scores)
    assert prepare(config).failed == 0
    dataset = GroupDataset.load(config.output)
    assert np.array_equal(dataset.scores, scores, equal_nan=True)
    assert len(dataset) == 8
    assert load_from_disk(config.output).to_pandas()["desync"].isna().sum() == 1


def test_killed_run_goes_on_with_the_same_rows(config, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_parts, "MIN_ROWS_PER_PART", 1)
    code = (
        "import os, signal, sys; from dpo.prepare import command, group_rows; from model.prepare import parts\n"
        "parts.MIN_ROWS_PER_PART = 1; encode = group_rows.GroupEncoder.rows\n"
        "def killed_at_2(self, prompt):\n"
        "    if prompt == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return encode(self, prompt)\n"
        "group_rows.GroupEncoder.rows = killed_at_2; command.main(sys.argv[1:])"
    )
    flags = ["--groups", config.groups, "--model", config.model, "--output", config.output]
    result = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL
    with pytest.raises(ValueError, match="holds no training dataset"):
        GroupDataset.load(config.output)
    assert prepare(config).skipped == 6
    prepare(replace(config, output=str(tmp_path / "undisturbed")))
    assert contents(config.output) == contents(tmp_path / "undisturbed")


def test_shards_make_the_dataset_of_one_call(config, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_parts, "MIN_ROWS_PER_PART", 1)
    prepare(config)
    shards = replace(config, output=str(tmp_path / "shards"))
    assert prepare(replace(shards, shard="1/2")).done == 3
    assert prepare(replace(shards, shard="0/2")).done == 8
    assert contents(shards.output) == contents(config.output)


@pytest.mark.slow  # starts Ray
def test_ray_makes_the_same_bytes(config, tmp_path, ray_session):
    prepare(config)
    prepare(replace(config, output=str(tmp_path / "ray"), num_workers=1))
    assert contents(tmp_path / "ray") == contents(config.output)


def test_a_run_in_a_bucket_gives_the_data_of_one_on_disk(config, bucket, tmp_path):
    prepare(config)
    run = Path(config.groups)
    for path in run.rglob("*"):
        if path.is_file():
            upload(path, bucket / "run" / path.relative_to(run).as_posix())
    remote = replace(config, groups=str(bucket / "run"), output=str(tmp_path / "from-bucket"))
    prepare(remote)
    rows = [load_from_disk(folder).to_list() for folder in (config.output, remote.output)]
    assert rows[0] == rows[1]


def test_finished_run_is_left_alone_and_needs_no_torch(config):
    prepare(config)
    before = contents(config.output)
    code = (
        "import sys; from dpo.prepare.command import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules and 'datasets' not in sys.modules; sys.exit(status)"
    )
    flags = ["--groups", config.groups, "--model", config.model, "--output", config.output]
    result = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "prepare: wanted 8, done 8 (skipped 8), failed 0" in result.stdout
    assert contents(config.output) == before


def test_a_folder_of_other_scores_is_refused(config):
    prepare(config)
    candidates, scores = tables(config.groups)
    save_tables(Path(config.groups), candidates, scores + 1)
    with pytest.raises(ValueError, match="groups_fingerprint"):
        prepare(config)


def test_a_candidate_of_another_shape_is_a_failure_and_its_group_goes_on(config):
    latents = AVLatents.load(media(config) / "p0-0.safetensors")
    AVLatents(latents.video[:, :2], latents.audio, 5, 32, 32, 16.0, 5000).save(media(config) / "p0-0.safetensors")
    prepare(config)
    assert list(failures(config)) == ["p0/0"]
    assert "it has video (4, 2, 4, 4), most of its group (4, 3, 4, 4)" in failures(config)["p0/0"]
    assert GroupDataset.load(config.output).prompt_ids == ["p0"] * 2 + ["p1"] * 3 + ["p2"] * 2


def test_the_last_usable_candidate_of_a_group_is_a_failure_too(config, capsys):
    (media(config) / "p2-0.safetensors").write_bytes(b"")
    flags = ["--groups", config.groups, "--model", config.model, "--output", config.output]
    assert main(flags) == 1
    assert "prepare: failed p2/0" in capsys.readouterr().out
    reasons = failures(config)
    assert "holds no latents of the sampler" in reasons["p2/0"]
    assert "only usable candidate of its prompt" in reasons["p2/1"]
    assert set(GroupDataset.load(config.output).prompt_ids) == {"p0", "p1"}


def test_groups_of_one_are_left_out_and_counted_and_small_ones_named(tmp_path, model, capsys):
    run = save_run(tmp_path / "run", model, sizes=(1, 8, 2))
    candidates, scores = tables(run)
    candidates[3] |= {"error": "out of memory", "video_path": None, "latents_path": None}
    save_tables(run, candidates, scores)
    config = PrepareConfig(groups=str(run), model=str(model), output=str(tmp_path / "data"))
    lines = "\n".join(plan(config))
    assert "9 candidates of 2 prompts; 9 have the sampler's latents, 0 clips are encoded" in lines
    assert "left out: 1 prompts with a single candidate" in lines
    assert "left out: 1 failed clips" in lines
    prepare(config)
    out = capsys.readouterr().out
    assert "prepare: left out: 1 prompts with a single candidate" in out
    assert "prepare: warning: 2 groups have fewer than 8 candidates" in out
    assert set(GroupDataset.load(config.output).prompt_ids) == {"p1", "p2"}


def test_real_clips_are_candidates_on_request_alone(tmp_path, model):
    run = save_run(tmp_path / "run", model, sizes=(3,), ground_truth=True)
    config = PrepareConfig(groups=str(run), model=str(model), output=str(tmp_path / "without"))
    assert prepare(config).wanted == 3
    config = replace(config, output=str(tmp_path / "with"), ground_truth=True)
    assert prepare(config).wanted == 4
    frame = load_from_disk(config.output).to_pandas()
    assert list(frame["is_ground_truth"]) == [True, False, False, False]
    assert frame["seed"].isna().tolist() == frame["model"].isna().tolist() == [True, False, False, False]
    clip = read_clip(media(config) / "p0--1.mp4", audio_path=media(config) / "p0--1.wav", num_frames=9)
    [encoded] = JointAVPipeline.from_pretrained(model).encode_clips([clip])
    candidate = GroupDataset.load(config.output)[0]
    torch.testing.assert_close(candidate.latents["audio"], encoded.audio, rtol=2e-3, atol=2e-3)


def test_real_clips_are_refused_in_groups_under_four(tmp_path, model):
    run = save_run(tmp_path / "run", model, sizes=(2,), ground_truth=True)
    with pytest.raises(ValueError, match="ground_truth is set, but the group of 'p0' has 3 candidates"):
        prepare(PrepareConfig(groups=str(run), model=str(model), output=str(tmp_path / "data"), ground_truth=True))


def test_prepared_candidates_can_be_looked_at(config):
    prepare(replace(config, check=2))
    videos = sorted((Path(config.output) / "check").glob("*.mp4"))
    assert len(videos) == 2
    assert videos[0].with_suffix(".wav").is_file()
    assert videos[0].with_suffix(".txt").read_text().endswith(("ball\n", "bounces\n"))


def _no_scores(run, candidates, scores):
    (run / "scores" / "scores.parquet").unlink()


def _older_scores(run, candidates, scores):
    save_tables(run, candidates[:-1], scores[:-1])
    table = read_table(run / "candidates" / "candidates.parquet", CANDIDATES, "")
    save_tables(run, candidates, scores)
    older = pq.read_table(run / "scores" / "scores.parquet").slice(0, table.num_rows)
    pq.write_table(older, run / "scores" / "scores.parquet")


def _no_groups(run, candidates, scores):
    save_tables(run, candidates[::3], scores[::3])


def _unknown_direction(run, candidates, scores):
    path = run / "scores" / "scores.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("mood", table["desync"]), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_no_scores, "python -m pipeline.score"),
        (_older_scores, "has no row of candidate 'p2/1'"),
        (_no_groups, "none of them with two"),
        (_unknown_direction, "column 'mood' has no direction"),
    ],
)
def test_tables_that_give_no_groups_are_refused(config, spoil, message):
    spoil(Path(config.groups), *tables(config.groups))
    with pytest.raises(ValueError, match=message):
        prepare(config)
    assert not Path(config.output).exists()


def test_vanished_files_are_named_before_any_work(config):
    (media(config) / "p1-2.safetensors").unlink()
    with pytest.raises(ValueError, match=r"p1-2\.safetensors of 1 candidates .* --max_failed 1"):
        prepare(config)
    assert "1 candidates lack files" in plan(config)
    assert prepare(replace(config, max_failed=1)).failed == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "set one of them"),
        ({"pairs": "a", "groups": "b"}, "set one of them"),
        ({"pairs": "a", "ground_truth": True}, "ground_truth is set, but pairs"),
    ],
)
def test_settings_name_pairs_or_groups(settings, message):
    with pytest.raises(ValueError, match=message):
        PrepareConfig(output="out", **settings)


def test_a_dataset_of_candidates_is_none_of_pairs(config):
    prepare(config)
    with pytest.raises(ValueError, match=r"no training dataset of pairs .* for the objective nft"):
        PairDataset.load(config.output)
    assert json.loads((Path(config.output) / "rewards.json").read_text())["desync"] == {
        "higher_is_better": False,
        "modality": "audio_video",
    }
