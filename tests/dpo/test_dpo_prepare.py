import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset, load_from_disk
from dpo_pipeline import save_pairs, save_pipeline

import dpo.prepare
from dpo.data import PairDataset
from dpo.prepare import PrepareConfig, prepare
from model.latents import AVLatents
from model.pipeline import JointAVPipeline


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config(tmp_path, model):
    pairs = save_pairs(tmp_path / "run" / "pairs", model)
    return PrepareConfig(pairs=str(pairs), model=str(model), output=str(tmp_path / "data"))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.name != "summary.json"}


def test_sampler_latents_are_used_and_ground_truth_is_encoded(config, model):
    prepare(config)
    dataset = PairDataset.load(config.output)
    assert [dataset[i].prompt_id for i in range(3)] == ["p0", "p1", "p2"]
    latents = AVLatents.load(Path(config.pairs).parent / "media" / "1-rejected.safetensors")
    assert torch.equal(dataset[1].rejected["video"], latents.video.half().float())
    assert torch.equal(dataset[1].rejected["audio"], latents.audio.half().float())
    from media.read import read_clip

    pipeline = JointAVPipeline.from_pretrained(model)
    media = Path(config.pairs).parent / "media"
    clip = read_clip(media / "gt.mp4", audio_path=media / "gt.wav")
    encoded = pipeline.encode_clips([clip])[0]
    torch.testing.assert_close(dataset[0].chosen["video"], encoded.video, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(dataset[0].chosen["audio"], encoded.audio, rtol=2e-3, atol=2e-3)


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
    assert row["fps"] == 16.0
    assert not (Path(config.output) / "parts").exists()


def test_killed_run_goes_on_where_it_stopped(config, monkeypatch, tmp_path):
    monkeypatch.setattr(dpo.prepare, "ROWS_PER_PART", 1)
    latents = dpo.prepare._latents

    def fails_at_p2(pipeline, root, pair, side):
        if pair["prompt_id"] == "p2":
            raise KeyboardInterrupt
        return latents(pipeline, root, pair, side)

    monkeypatch.setattr(dpo.prepare, "_latents", fails_at_p2)
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    with pytest.raises(ValueError, match="holds no training dataset"):
        PairDataset.load(config.output)
    monkeypatch.setattr(dpo.prepare, "_latents", latents)
    assert prepare(config).skipped == 2

    undisturbed = PrepareConfig(pairs=config.pairs, model=config.model, output=str(tmp_path / "undisturbed"))
    prepare(undisturbed)
    first, second = (load_from_disk(folder).to_list() for folder in (config.output, undisturbed.output))
    assert first == second


def test_finished_run_is_left_alone_and_needs_no_torch(config):
    prepare(config)
    before = contents(config.output)
    code = (
        "import sys; from dpo.prepare import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules and 'datasets' not in sys.modules; sys.exit(status)"
    )
    flags = ["--pairs", config.pairs, "--model", config.model, "--output", config.output]
    result = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "prepare: wanted 3, done 3 (skipped 3), failed 0" in result.stdout
    assert contents(config.output) == before


def test_folder_of_other_pairs_is_refused(config):
    prepare(config)
    rows = load_from_disk(config.pairs).to_list()
    rows[0]["prompt"] = "another caption"
    Dataset.from_list(rows).save_to_disk(config.pairs + "-new")
    other = PrepareConfig(pairs=config.pairs + "-new", model=config.model, output=config.output)
    with pytest.raises(ValueError, match="pairs_fingerprint"):
        prepare(other)


def test_vanished_files_are_named_before_any_work(config):
    missing = Path(config.pairs).parent / "media" / "2-chosen.safetensors"
    missing.unlink()
    with pytest.raises(ValueError, match=r"2-chosen\.safetensors of the pairs"):
        prepare(config)
    assert not Path(config.output).exists()


def test_members_of_different_shapes_are_refused(config):
    path = Path(config.pairs).parent / "media" / "1-chosen.safetensors"
    latents = AVLatents.load(path)
    AVLatents(latents.video[:, :2], latents.audio, 5, 32, 32, 16.0, 5000).save(path)
    with pytest.raises(ValueError, match="'p1': the chosen clip has video"):
        prepare(config)


def test_nan_latents_are_refused(config):
    path = Path(config.pairs).parent / "media" / "1-chosen.safetensors"
    latents = AVLatents.load(path)
    latents.audio[0, 0, 0] = float("nan")
    latents.save(path)
    with pytest.raises(ValueError, match="'p1': its chosen audio data is not finite"):
        prepare(config)


def test_no_pairs_and_foreign_folders_are_refused(tmp_path, config):
    empty = load_from_disk(config.pairs).select([])
    empty.save_to_disk(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="has no pairs"):
        prepare(PrepareConfig(pairs=str(tmp_path / "empty"), output=str(tmp_path / "out")))
    with pytest.raises(ValueError, match="holds no pairs dataset"):
        prepare(PrepareConfig(pairs=str(tmp_path), output=str(tmp_path / "out")))


def test_dry_run_writes_nothing(config):
    dry = PrepareConfig(pairs=config.pairs, model=config.model, output=config.output, dry_run=True)
    summary = prepare(dry)
    assert (summary.wanted, summary.done) == (3, 0)
    assert not Path(config.output).exists()


def test_summary_records_settings_and_versions(config):
    prepare(config)
    summary = json.loads((Path(config.output) / "summary.json").read_text())
    assert (summary["wanted"], summary["done"], summary["failed"]) == (3, 3, 0)
    assert summary["settings"]["model"] == config.model
    assert (Path(config.output) / "config.yaml").is_file()
