"""Training obeys the verdict of the signal test."""

from __future__ import annotations

import json

import pytest

from dpo.data.verdict import read_verdicts, refuse_marks, write_verdicts
from dpo.train.command import main
from tests.dpo.dpo_helpers import make_rows, save_model, save_rows, tiny_model


@pytest.fixture
def data(tmp_path):
    model = save_model(tmp_path / "model", tiny_model())
    folder = save_rows(tmp_path / "data", make_rows())
    write_verdicts(folder, {"video": "signal", "audio": "mark"}, {})
    return model, folder


def train(data, output, *changes):
    model, folder = data
    flags = ["--model", str(model), "--dataset", str(folder), "--output_dir", str(output), "--max_steps", "1"]
    return main([*flags, "--use_cpu", "true", "--ema_decay", "0", "--lora_r", "2", *changes])


@pytest.mark.parametrize("dry_run", [[], ["--dry_run"]])
def test_a_modality_that_carries_the_mark_is_refused(data, tmp_path, capsys, dry_run):
    assert train(data, tmp_path / "out", *dry_run) == 2
    message = capsys.readouterr().err
    for part in ("beta_audio is above 0", "mark of the rule", "set beta_audio 0", "train_on_mark true"):
        assert part in message


@pytest.mark.parametrize("changes", [["--beta_audio", "0"], ["--audio_weight", "0"], ["--train_on_mark", "true"]])
def test_it_trains_where_nothing_learns_the_mark_or_when_asked(data, tmp_path, changes):
    assert train(data, tmp_path / "out", *changes) == 0


def test_pairs_without_a_verdict_train_as_ever(data, tmp_path):
    (data[1] / "signal.json").unlink()
    assert read_verdicts(data[1]) == {}
    refuse_marks(data[1], {"video": 1.0, "audio": 1.0})


def test_a_construction_that_is_not_finished_is_refused(data):
    (data[1] / "signal.json").unlink()
    (data[1] / "prepare.json").write_text(json.dumps({"distortion": "shift"}))
    with pytest.raises(ValueError, match=r"finish it with the same `python -m dpo\.construct`"):
        refuse_marks(data[1], {"video": 1.0, "audio": 0.0})


def test_a_damaged_verdict_is_named(data):
    (data[1] / "signal.json").write_text('{"verdicts": {"video": "perhaps"}}')
    with pytest.raises(ValueError, match="holds no verdicts: make it again"):
        read_verdicts(data[1])
