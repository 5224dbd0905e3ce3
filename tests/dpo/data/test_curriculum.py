"""The curriculum: stages in order, the same before and after a restart, and refused where it cannot be."""

from __future__ import annotations

import shutil

import pytest
from datasets import Dataset, Features, Value
from safetensors.torch import save_file

from dpo.data.curriculum import Curriculum
from dpo.data.dataset import PairDataset
from dpo.data.schema import NEGATIVE_TEXT_NAME, dataset_features
from dpo.train.command import main
from model.train.callbacks import read_log
from tests.dpo.dpo_helpers import make_rows, make_trainer, save_model, tiny_model
from tests.small_latents import negative_text

STAGES = [0, 1, 2, 0, 1, 2, 0, 1, 2, 2, 1, 2]  # 3, 4 and 5 pairs


def staged(stages=STAGES):
    rows = [row | {"stage": stage} for row, stage in zip(make_rows(len(stages)), stages, strict=True)]
    features = Features(dataset_features() | {"stage": Value("int32")})
    return Dataset.from_list(rows, features=features)


def rows_of(labels):
    return [row for row, label in enumerate(labels) if label is not None]


def test_each_stage_has_its_epochs_and_the_last_one_stays():
    curriculum = Curriculum(PairDataset(staged(), negative_text()), 2)
    stages = [{STAGES[row] for row in rows_of(curriculum.labels(epoch))} for epoch in range(8)]
    assert stages == [{0}, {0}, {1}, {1}, {2}, {2}, {2}, {2}]
    assert len(rows_of(curriculum.labels(2))) == 4


def test_a_stage_that_guards_emptied_takes_no_epochs():
    curriculum = Curriculum(PairDataset(staged([0, 0, 2, 2]), negative_text()), 1)
    assert [rows_of(curriculum.labels(epoch)) for epoch in range(3)] == [[0, 1], [2, 3], [2, 3]]


def test_pairs_without_stages_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no stages: make its pairs with"):
        make_trainer(tmp_path / "out", stage_epochs=1)


@pytest.fixture
def data(tmp_path):
    model, folder = save_model(tmp_path / "model", tiny_model()), tmp_path / "data"
    staged().save_to_disk(str(folder))
    save_file({"embeds": negative_text()}, folder / NEGATIVE_TEXT_NAME)
    return model, folder


def train(data, output, *changes):
    flags = ["--model", data[0], "--dataset", data[1], "--output_dir", output, "--stage_epochs", 1, "--lora_r", 2]
    settings = ["--use_cpu", "true", "--logging_steps", 1, "--save_steps", 1, "--save_total_limit", 9, *changes]
    return main([str(one) for one in flags + settings])


def test_killed_training_goes_on_in_its_stage(data, tmp_path):
    """Three batches of one pair in each of three epochs, continued in the middle of the second."""
    assert train(data, tmp_path / "whole", "--num_train_epochs", 3) == 0
    losses = [line["loss"] for line in read_log(tmp_path / "whole") if "loss" in line]
    assert len(losses) == 9
    killed = shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    for step in range(6, 10):
        shutil.rmtree(killed / f"checkpoint-{step}")
    for name in ("summary.json", "train_log.jsonl"):
        (killed / name).unlink()
    assert train(data, killed, "--num_train_epochs", 3, "--resume_from_checkpoint", "latest") == 0
    assert [line["loss"] for line in read_log(killed) if "loss" in line] == losses[5:]


def test_a_run_that_ends_before_the_last_stage_is_refused(data, tmp_path, capsys):
    for dry_run in ([], ["--dry_run"]):
        assert train(data, tmp_path / "out", "--num_train_epochs", 2, *dry_run) == 2
        message = capsys.readouterr().err
        assert "begins after 2 epochs: raise num_train_epochs to 3 (or max_steps to 9)" in message
    assert not (tmp_path / "out").exists()
