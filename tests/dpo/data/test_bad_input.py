"""Unusable training data is reported in one line before the first step, and the output folder stays free."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from dpo.train.command import main
from tests.dpo.dpo_helpers import make_rows, save_model, save_rows
from tests.small_latents import small_network


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "model", small_network())


def refuse(model, data, tmp_path, capsys, *flags):
    """Return the one line that the command prints to stderr."""
    capsys.readouterr()
    argv = ["--model", str(model), "--dataset", str(data), "--output_dir", str(tmp_path / "out"), "--use_cpu", "true"]
    assert main([*argv, "--max_steps", "1", "--disable_tqdm", "true", *flags]) == 2
    assert not (tmp_path / "out" / "run.json").exists()
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    return error


def test_no_pairs(model, tmp_path, capsys):
    empty = save_rows(tmp_path / "data", make_rows(1))
    from datasets import load_from_disk

    load_from_disk(str(empty)).select([]).save_to_disk(str(tmp_path / "empty"))
    assert "has no pairs" in refuse(model, tmp_path / "empty", tmp_path, capsys)


def test_no_dataset(model, tmp_path, capsys):
    assert "holds no training dataset" in refuse(model, tmp_path / "missing", tmp_path, capsys)


def test_files_that_vanished(model, tmp_path, capsys):
    data = save_rows(tmp_path / "data", make_rows(2))
    next(data.glob("*.arrow")).unlink()
    error = refuse(model, data, tmp_path, capsys)
    assert ".arrow" in error
    assert "prepare it again" in error


def test_members_of_different_shapes(model, tmp_path, capsys):
    rows = make_rows(2)
    rows[1]["rejected_audio_latents"] = rows[1]["rejected_audio_latents"][:-4]
    assert "'p1' has 60 values in rejected_audio_latents" in refuse(
        model, save_rows(tmp_path / "data", rows), tmp_path, capsys
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_latents_that_are_no_numbers(model, tmp_path, capsys, value):
    rows = make_rows(3)
    rows[2]["chosen_video_latents"][7] = value
    error = refuse(model, save_rows(tmp_path / "data", rows), tmp_path, capsys)
    assert "'p2' (row 2) has non-finite values in its chosen video" in error


def test_latents_of_other_codecs(model, tmp_path, capsys):
    data = save_rows(tmp_path / "data", make_rows(2, video_shape=(5, 3, 4, 4)))
    assert "5 video channels, the model expects 4" in refuse(model, data, tmp_path, capsys)


def test_captions_of_another_text_encoder(model, tmp_path, capsys):
    rows = make_rows(2, text_embeds=[0.5] * 12, text_length=2, text_dim=6)
    error = refuse(model, save_rows(tmp_path / "data", rows), tmp_path, capsys)
    assert "6 text channels, the model expects 12" in error
    assert "run `python -m dpo.prepare` with this one" in error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_latents_shape": [5, 3, 4, 4], "latents": 240}, "'p2' has 5 video channels, the model expects 4"),
        ({"video_latents_shape": [4, 4, 3, 4], "latents": 192}, "'p2' has video latents of size (4, 3, 4)"),
        ({"text_embeds": [0.5] * 12, "text_length": 2, "text_dim": 6}, "'p2' has 6 text channels"),
        ({"text_embeds": [0.5] * 84, "text_length": 7}, "caption of 7 tokens, but the model takes at most 6"),
    ],
)
def test_pair_of_another_model_behind_fitting_ones(model, tmp_path, capsys, changes, message):
    rows = make_rows(3)
    size = changes.pop("latents", None)
    rows[2] |= changes | {f"{side}_video_latents": [0.5] * size for side in ("chosen", "rejected") if size}
    assert message in refuse(model, save_rows(tmp_path / "data", rows), tmp_path, capsys)


@pytest.mark.parametrize("shape", [(5, 12), (6, 11)])
def test_negative_prompt_of_another_model(model, tmp_path, capsys, shape):
    """The network attends to padding, so a negative prompt must be as long as the captions of training."""
    data = save_rows(tmp_path / "data", make_rows(2))
    save_file({"embeds": torch.ones(shape)}, data / "negative_text.safetensors")
    assert f"negative prompt of {shape} (tokens, channels), the model expects (6, 12)" in refuse(
        model, data, tmp_path, capsys
    )


def test_the_same_pair_twice(model, tmp_path, capsys):
    data = save_rows(tmp_path / "data", make_rows(2) + make_rows(1, first_id=1))
    assert "has pair 'p1' 2 times" in refuse(model, data, tmp_path, capsys)


def test_dropped_captions_without_a_negative_prompt(model, tmp_path, capsys):
    data = save_rows(tmp_path / "data", make_rows(2))
    (data / "negative_text.safetensors").unlink()
    assert "set text_dropout to 0" in refuse(model, data, tmp_path, capsys)


def test_weights_by_a_margin_that_pairs_lack(model, tmp_path, capsys):
    data = save_rows(tmp_path / "data", make_rows(2, margin=None))
    assert "turn margin_weighting off" in refuse(model, data, tmp_path, capsys, "--margin_weighting", "true")


def test_model_that_is_none(model, tmp_path, capsys):
    data = save_rows(tmp_path / "data", make_rows(2))
    assert "is no model" in refuse(tmp_path / "nothing", data, tmp_path, capsys)


def test_no_full_batch(model, tmp_path, capsys):
    data = save_rows(tmp_path / "data", make_rows(2))
    flags = ["--dataloader_drop_last", "true", "--per_device_train_batch_size", "4"]
    assert "lower the batch size" in refuse(model, data, tmp_path, capsys, *flags)


def test_a_dry_run_finds_it_as_well(model, tmp_path, capsys):
    data = save_rows(tmp_path / "data", make_rows(2, video_shape=(5, 3, 4, 4)))
    assert "5 video channels" in refuse(model, data, tmp_path, capsys, "--dry_run")


def test_pairs_of_several_shapes_are_no_mistake(model, tmp_path):
    rows = make_rows(2) + make_rows(2, video_shape=(4, 2, 4, 4), first_id=2)
    data = save_rows(tmp_path / "data", rows)
    argv = ["--model", str(model), "--dataset", str(data), "--output_dir", str(tmp_path / "out"), "--use_cpu", "true"]
    assert main([*argv, "--lora_r", "2", "--disable_tqdm", "true"]) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["done"] == 4


def test_margin_weights_scale_the_loss(model, tmp_path):
    """A pair with twice the mean margin counts twice; with learning rate 0 the losses show the weights."""
    losses = {}
    for weighting in ("false", "true"):
        rows = [row | {"margin": margin} for row, margin in zip(make_rows(2), (1.0, 3.0), strict=True)]
        data = save_rows(tmp_path / f"data-{weighting}", rows)
        folder = tmp_path / weighting
        argv = ["--model", str(model), "--dataset", str(data), "--output_dir", str(folder), "--use_cpu", "true"]
        argv += ["--lora_r", "2", "--disable_tqdm", "true", "--logging_steps", "1", "--learning_rate", "0"]
        assert main([*argv, "--margin_weighting", weighting]) == 0
        lines = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
        losses[weighting] = sorted(line["loss"] for line in lines if "loss" in line)
    ratios = sorted(b / a for a, b in zip(losses["false"], losses["true"], strict=True))
    assert ratios == pytest.approx([0.5, 1.5], rel=0.2)
