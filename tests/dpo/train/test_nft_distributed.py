"""Negative-aware fine-tuning in two processes: equal to one process, also where they share a group."""

from __future__ import annotations

import re

import pytest
import torch

from dpo.train.command import main
from model.javisdit.weights.folders import load_transformer
from model.train.callbacks import read_log
from tests.dpo.dpo_helpers import make_group_rows, save_groups, save_model
from tests.processes import fsdp_variables, in_processes
from tests.small_latents import small_network

SHOWN = re.compile(r"(loss|grad_norm|grad_share|distance/old|signal|error/\w+)(/(nft))?(/(video|audio|shared))?$")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Return (model folder, training dataset of six groups of four)."""
    root = tmp_path_factory.mktemp("start")
    return save_model(root / "model", small_network()), save_groups(root / "groups", make_group_rows(6))


def flags(start, output, **changes):
    """Return flags with a large epsilon of Adam, so that steps are about proportional to the gradient."""
    values = {
        "objective": "nft",
        "model": start[0],
        "dataset": start[1],
        "output_dir": output,
        "shared_draws": True,
        "max_steps": 3,
        "learning_rate": 0.3,
        "adam_epsilon": 1.0,
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "per_device_train_batch_size": 2,
        "ema_decay": 0.5,
        "use_cpu": True,
        "disable_tqdm": True,
    } | changes
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def assert_same_training(folder, other):
    """Assert equal losses, errors, gradients and weights, up to rounding of sums in another order."""
    logs = [
        [{n: v for n, v in line.items() if SHOWN.match(n)} for line in read_log(run) if "loss" in line]
        for run in (folder, other)
    ]
    assert len(logs[0]) == len(logs[1]) == 3
    assert {"loss", "distance/old/audio", "error/old/video", "grad_share/audio"} < logs[0][0].keys()
    for line, expected in zip(*logs, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert line == pytest.approx(expected, rel=1e-3, abs=1e-5)
    for part in ("", "ema"):
        first, second = (load_transformer(run / part).state_dict() for run in (folder, other))
        for name, tensor in second.items():
            assert torch.allclose(first[name], tensor, rtol=1e-4, atol=1e-6), name


def test_two_processes_with_half_a_group_each_make_the_steps_of_one(start, tmp_path):
    status, notes = in_processes("dpo.train", flags(start, tmp_path / "two"))
    assert status == [0, 0], notes
    assert main(flags(start, tmp_path / "one", gradient_accumulation_steps=2)) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_fsdp2_trains_as_one_process(start, tmp_path, kind):
    argv = flags(start, tmp_path / "two", trainable=kind, use_cpu=False)
    status, notes = in_processes("dpo.train", argv, sharded=True, **fsdp_variables())
    assert status == [0, 0], notes
    assert main(flags(start, tmp_path / "one", trainable=kind, gradient_accumulation_steps=2)) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")
