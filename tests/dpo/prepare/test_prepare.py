from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, load_from_disk
from safetensors.torch import save_file

from core.lineage import LABELLED, read_lineage
from core.storage import upload
from dpo.data.dataset import PairDataset
from dpo.prepare import rows as prepare_rows
from dpo.prepare.command import main, plan, prepare
from dpo.prepare.config import PrepareConfig
from media.clip import AVClip
from media.probe import probe
from media.read import read_clip
from media.write import write_clip
from model.javisdit.codecs.latents import AVLatents
from model.javisdit.pipeline import JointAVPipeline
from model.prepare import parts as prepare_parts
from tests.dpo.dpo_pipeline import save_pairs, save_pipeline
from tests.locks import held_by_another_process


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config(tmp_path, model):
    pairs = save_pairs(tmp_path / "run" / "pairs", model)
    return PrepareConfig(pairs=str(pairs), model=str(model), output=str(tmp_path / "data"))


def contents(folder):
    times = ("summary.json", "config.yaml")  # these files contain the duration of the run and the folder's name
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.name not in times]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def with_pairs(config, change):
    """Return the config with pairs that `change` makes from its rows."""
    folder = f"{config.pairs}-changed"
    Dataset.from_list(change(load_from_disk(config.pairs).to_list())).save_to_disk(folder)
    return replace(config, pairs=folder)


def several_of_a_prompt(rows):
    """Return three pairs of p0, from three candidates, with the pairs of p1 and p2 between them."""
    names = ("candidate_id", "video_path", "audio_path", "latents_path", "seed")
    truth, first = ({name: rows[0][f"{side}_{name}"] for name in names} for side in ("chosen", "rejected"))
    second = {name: rows[1][f"chosen_{name}"] for name in names} | {"candidate_id": "p0/2"}

    def pair(winner, loser, margin):
        sides = {f"chosen_{n}": v for n, v in winner.items()} | {f"rejected_{n}": v for n, v in loser.items()}
        return rows[0] | sides | {"margin": margin}

    return [pair(truth, first, 3.0), rows[1], pair(truth, second, 2.0), rows[2], pair(second, first, 1.0)]


def test_what_chose_the_pairs_is_copied(config):
    ranking = Path(config.pairs) / "ranking.json"
    ranking.write_text(json.dumps({"num_pairs": 3, "lineage": LABELLED.to_dict()}))
    prepare(config)
    assert read_lineage(Path(config.output)) == LABELLED
    (Path(config.output) / "lineage.json").unlink()  # like a dataset from before this column existed
    prepare(config)
    assert read_lineage(Path(config.output)) == LABELLED


def test_sampler_latents_are_used_and_ground_truth_is_encoded(config, model):
    prepare(config)
    dataset = PairDataset.load(config.output)
    assert [dataset[i].prompt_id for i in range(3)] == ["p0", "p1", "p2"]
    latents = AVLatents.load(Path(config.pairs).parent / "media" / "1-rejected.safetensors")
    assert torch.equal(dataset[1].rejected["video"], latents.video.half().float())
    assert torch.equal(dataset[1].rejected["audio"], latents.audio.half().float())
    pipeline = JointAVPipeline.from_pretrained(model)
    media = Path(config.pairs).parent / "media"
    clip = read_clip(media / "gt.mp4", audio_path=media / "gt.wav")
    encoded = pipeline.encode_clips([clip])[0]
    torch.testing.assert_close(dataset[0].chosen["video"], encoded.video, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(dataset[0].chosen["audio"], encoded.audio, rtol=2e-3, atol=2e-3)


def test_pairs_in_a_bucket_give_the_data_of_those_on_disk(config, bucket, tmp_path):
    prepare(config)
    run = Path(config.pairs).parent
    for path in run.rglob("*"):
        if path.is_file():
            upload(path, bucket / "run" / path.relative_to(run).as_posix())
    remote = replace(config, pairs=str(bucket / "run" / "pairs"), output=str(tmp_path / "from-bucket"))
    prepare(remote)
    for folder in (config.output, remote.output):
        assert len(PairDataset.load(folder)) == 3
    rows = [load_from_disk(folder).to_list() for folder in (config.output, remote.output)]
    assert rows[0] == rows[1]
    (bucket / "run" / "media" / "gt.mp4").unlink()
    with pytest.raises(ValueError, match=r"s3://.*gt\.mp4 .*do not exist"):
        prepare(replace(remote, output=str(tmp_path / "other")))


def test_longer_and_larger_ground_truth_is_cut_as_the_candidates_are(config, model):
    """Both clips start at time 0 and show the same part of the picture; a longer clip changes nothing."""
    media = Path(config.pairs).parent / "media"
    clip = read_clip(media / "gt.mp4", audio_path=media / "gt.wav")
    tail = np.zeros((8, *clip.video.shape[1:]), np.uint8)
    sound = np.concatenate([clip.audio, np.ones((1, 8000), np.float32)], axis=1)
    write_clip(AVClip(np.concatenate([clip.video, tail]), clip.fps, sound, clip.sample_rate), media / "gt.mp4")
    prepare(config)
    pair = PairDataset.load(config.output)[0]
    start = read_clip(media / "gt.mp4", audio_path=media / "gt.wav", num_frames=9)
    assert np.array_equal(start.audio, clip.audio)
    [expected] = JointAVPipeline.from_pretrained(model).encode_clips([start])
    torch.testing.assert_close(pair.chosen["video"], expected.video, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(pair.chosen["audio"], expected.audio, rtol=2e-3, atol=2e-3)
    assert pair.chosen["video"].shape == pair.rejected["video"].shape


def test_text_and_negative_prompt_are_the_encoders(config, model):
    prepare(config)
    dataset = PairDataset.load(config.output)
    pipeline = JointAVPipeline.from_pretrained(model)
    text = pipeline.encode_text(["a red ball", "blurry"])
    torch.testing.assert_close(dataset[1].text, text.embeds[0, :3], rtol=2e-3, atol=2e-3)
    assert torch.equal(dataset.negative_text, text.embeds[1])


def test_dataset_opens_without_this_package(config):
    prepare(config)
    row = load_from_disk(config.output)[0]
    assert len(row["chosen_video_latents"]) == torch.tensor(row["video_latents_shape"]).prod()
    assert (row["fps"], row["pair_id"], row["margin"]) == (16.0, "p0/gt>p0/1", 1.0)


def test_pairs_of_a_prompt_share_its_caption_and_candidates(config, monkeypatch):
    """Captions are embedded once, candidates are read or encoded once, and the pairs of a prompt are adjacent."""
    seen = {"texts": [], "loaded": [], "encoded": 0}
    encode_text, load, encode = JointAVPipeline.encode_text, AVLatents.load, JointAVPipeline.encode_clips

    def count_texts(self, prompts):
        seen["texts"] += prompts
        return encode_text(self, prompts)

    def count_loads(path):
        seen["loaded"].append(path.name)
        return load(path)

    def count_clips(self, clips):
        seen["encoded"] += len(clips)
        return encode(self, clips)

    monkeypatch.setattr(JointAVPipeline, "encode_text", count_texts)
    monkeypatch.setattr(prepare_rows.AVLatents, "load", count_loads)
    monkeypatch.setattr(JointAVPipeline, "encode_clips", count_clips)
    summary = prepare(with_pairs(config, several_of_a_prompt))
    assert (summary.wanted, summary.done) == (5, 5)
    dataset = PairDataset.load(config.output)
    pairs = [dataset[i] for i in range(5)]
    names = ["p0/gt>p0/1", "p0/gt>p0/2", "p0/2>p0/1", "p1/0>p1/1", "p2/0>p2/1"]
    assert [pair.pair_id for pair in pairs] == names
    assert [pair.margin for pair in pairs] == [3.0, 2.0, 1.0, 1.0, 1.0]
    assert torch.equal(pairs[0].chosen["video"], pairs[1].chosen["video"])
    assert torch.equal(pairs[1].rejected["audio"], pairs[2].chosen["audio"])
    assert seen["encoded"] == 1
    loaded = [
        "0-rejected",
        "1-chosen",
        "1-chosen",
        "1-rejected",
        "2-chosen",
        "2-rejected",
    ]  # once as p0/2, once as p1/0
    assert sorted(seen["loaded"]) == [f"{name}.safetensors" for name in loaded]
    assert len(seen["texts"]) == 4  # three prompts and the negative one


def test_pairs_labelled_by_people_are_taken(config):
    """Such pairs may lack margins, scores and geometry, and may be in any order."""

    def human(rows):
        missing = ("margin", "num_frames", "height", "width", "fps", "sample_rate")
        return [{name: value for name, value in row.items() if name not in missing} for row in reversed(rows)]

    prepare(with_pairs(config, human))
    dataset = PairDataset.load(config.output)
    assert [dataset[i].pair_id for i in range(3)] == ["p2/0>p2/1", "p1/0>p1/1", "p0/gt>p0/1"]
    assert (dataset[0].num_frames, dataset[0].height, dataset[2].width) == (9, 32, 32)
    with pytest.raises(ValueError, match="turn margin_weighting off"):
        dataset.mean_margin()


def test_killed_run_goes_on_where_it_stopped(config, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_parts, "MIN_ROWS_PER_PART", 1)
    code = (
        "import os, signal, sys; from dpo.prepare import command, rows; from model.prepare import parts\n"
        "parts.MIN_ROWS_PER_PART = 1; encode = rows.PairEncoder.rows\n"
        "def killed_at_2(self, prompt):\n"
        "    if prompt == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return encode(self, prompt)\n"
        "rows.PairEncoder.rows = killed_at_2; command.main(sys.argv[1:])"
    )
    flags = ["--pairs", config.pairs, "--model", config.model, "--output", config.output]
    result = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL
    with pytest.raises(ValueError, match="holds no training dataset"):
        PairDataset.load(config.output)
    assert prepare(config).skipped == 2
    prepare(replace(config, output=str(tmp_path / "undisturbed")))
    assert contents(config.output) == contents(tmp_path / "undisturbed")


def test_ray_makes_the_same_bytes(config, tmp_path, ray_session):
    prepare(config)
    summary = prepare(replace(config, output=str(tmp_path / "ray"), num_workers=1))
    assert (summary.done, summary.failed) == (3, 0)
    assert contents(tmp_path / "ray") == contents(config.output)


def test_finished_run_is_left_alone_and_needs_no_torch(config):
    prepare(config)
    before = contents(config.output)
    code = (
        "import sys; from dpo.prepare.command import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules and 'datasets' not in sys.modules; sys.exit(status)"
    )
    flags = ["--pairs", config.pairs, "--model", config.model, "--output", config.output]
    result = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "prepare: wanted 3, done 3 (skipped 3), failed 0" in result.stdout
    assert contents(config.output) == before


def test_a_second_run_is_refused(config):
    with (
        held_by_another_process(Path(config.output)) as holder,
        pytest.raises(ValueError, match=f"is in use by another run: process {holder.pid} on "),
    ):
        prepare(config)


def test_folder_of_other_pairs_is_refused(config):
    prepare(config)
    with pytest.raises(ValueError, match="pairs_fingerprint"):
        prepare(with_pairs(config, lambda rows: [rows[0] | {"prompt": "another caption"}]))


def test_vanished_files_are_named_before_any_work(config):
    (Path(config.pairs).parent / "media" / "2-chosen.safetensors").unlink()
    with pytest.raises(ValueError, match=r"2-chosen\.safetensors of 1 pairs .* --max_failed 1"):
        prepare(config)
    assert not Path(config.output).exists()
    assert any("1 pairs lack files" in line for line in plan(replace(config, dry_run=True)))
    assert prepare(replace(config, max_failed=1)).failed == 1


def _other_shape(media):
    latents = AVLatents.load(media / "1-chosen.safetensors")
    AVLatents(latents.video[:, :2], latents.audio, 5, 32, 32, 16.0, 5000).save(media / "1-chosen.safetensors")


def _nan(media):
    latents = AVLatents.load(media / "1-chosen.safetensors")
    latents.audio[0, 0, 0] = float("nan")
    latents.save(media / "1-chosen.safetensors")


def _too_large(media):
    latents = AVLatents.load(media / "1-chosen.safetensors")
    latents.audio[0, 0, 0] = 1e6
    latents.save(media / "1-chosen.safetensors")


def _cut_off(media):
    content = (media / "1-chosen.safetensors").read_bytes()
    (media / "1-chosen.safetensors").write_bytes(content[:100])


def _foreign(media):
    save_file({"weight": torch.ones(2)}, media / "1-chosen.safetensors")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_other_shape, "the chosen clip has video"),
        (_nan, "audio latents that are not finite"),
        (_too_large, "chosen_audio_latents are not finite in float16"),
        (_cut_off, "holds no latents of the sampler"),
        (_foreign, "holds no latents of the sampler"),
    ],
)
def test_a_bad_pair_is_told_and_stops_nothing(config, spoil, reason, capsys):
    spoil(Path(config.pairs).parent / "media")
    assert main(["--pairs", config.pairs, "--model", config.model, "--output", config.output]) == 1
    assert "prepare: failed p1/0>p1/1" in capsys.readouterr().out
    [failure] = pq.read_table(Path(config.output) / "failures.parquet").to_pylist()
    assert (failure["pair_id"], failure["prompt_id"]) == ("p1/0>p1/1", "p1")
    assert reason in failure["reason"]
    assert len(PairDataset.load(config.output)) == 2


def test_repaired_pairs_are_tried_again(config):
    path = Path(config.pairs).parent / "media" / "1-chosen.safetensors"
    content = path.read_bytes()
    _cut_off(path.parent)
    assert prepare(config).failed == 1
    path.write_bytes(content)
    summary = prepare(replace(config, retry_failed=True))
    assert (summary.done, summary.failed) == (3, 0)


def test_no_usable_pair_is_an_error(config):
    for path in (Path(config.pairs).parent / "media").glob("*-rejected.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="None of the 3 pairs can be used, such as p0/gt>p0/1"):
        prepare(config)


def test_latents_of_another_model_are_refused(config):
    """The latents have five channels, but the model has four."""
    path = Path(config.pairs).parent / "media" / "0-rejected.safetensors"
    latents = AVLatents.load(path)
    replace(latents, video=torch.cat([latents.video, latents.video[:1]])).save(path)
    with pytest.raises(ValueError, match="5 video channels, but the model works on 4"):
        prepare(config)


def test_data_of_other_encoders_is_refused_though_its_shapes_fit(config, tmp_path):
    """A model with another seed has the same channels but other weights; a copy has the same weights at any path."""
    prepare(config)
    dataset = PairDataset.load(config.output)
    dataset.check_model(config.model)
    dataset.check_model(shutil.copytree(config.model, tmp_path / "copy"))
    other = save_pipeline(tmp_path / "other", seed=1)
    dataset.check_network(JointAVPipeline.from_pretrained(other).transformer)
    with pytest.raises(ValueError, match="was made by the codecs and the text encoder of"):
        dataset.check_model(other)


def test_no_pairs_foreign_folders_and_doubles_are_refused(tmp_path, config):
    empty = load_from_disk(config.pairs).select([])
    empty.save_to_disk(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="has no pairs"):
        prepare(PrepareConfig(pairs=str(tmp_path / "empty"), output=str(tmp_path / "out")))
    with pytest.raises(ValueError, match="holds no pairs dataset"):
        prepare(PrepareConfig(pairs=str(tmp_path), output=str(tmp_path / "out")))
    with pytest.raises(ValueError, match=r"pair 'p0/gt>p0/1' twice"):
        prepare(with_pairs(config, lambda rows: [*rows, rows[0]]))


def test_prepared_pairs_can_be_looked_at(config):
    for count in (1, 2):
        prepare(replace(config, check=count))
        videos = sorted((Path(config.output) / "check").glob("*.mp4"))
        assert len(videos) == 2 * count  # the same pair, and another; winner and loser
    assert {video.stem.rsplit("-", 1)[1] for video in videos} == {"chosen", "rejected"}
    info = probe(videos[0])
    assert (info.num_frames, info.height, info.num_channels) == (9, 32, 1)
    assert videos[0].with_suffix(".wav").is_file()


def test_dry_run_writes_nothing(config, capsys):
    assert main(["--pairs", config.pairs, "--model", config.model, "--output", config.output, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "3 pairs of 3 prompts; 5 of 6 members have the sampler's latents, 1 clips are encoded" in out
    assert "prepare: wanted 3, done 0, left 3" in out
    assert not Path(config.output).exists()


def test_summary_records_settings_and_versions(config):
    prepare(config)
    summary = json.loads((Path(config.output) / "summary.json").read_text())
    assert (summary["wanted"], summary["done"], summary["failed"]) == (3, 3, 0)
    assert summary["settings"]["model"] == config.model
    assert (Path(config.output) / "config.yaml").is_file()
