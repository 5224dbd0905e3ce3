"""Several processes are one preference training: by torch's variables (DDP), sharded (FSDP2), by Ray Train."""

import json
import re

import pytest
import torch
from dpo_helpers import make_rows, save_model, save_rows

from dpo.train import main
from model.callbacks import read_log
from model.locate import load_transformer
from tests.processes import fsdp_variables, in_processes
from tests.small_latents import small_network

SHOWN = re.compile(r"(loss|grad_norm|grad_share|rewards/\w+|(ref_)?error/\w+)(/(dpo|fm))?(/(video|audio|shared))?$")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """(model folder, training dataset of 12 pairs)"""
    root = tmp_path_factory.mktemp("start")
    return save_model(root / "model", small_network()), save_rows(root / "data", make_rows(12))


def flags(start, output, **changes):
    """Adam with an epsilon that makes its steps about proportional to the gradient, so that rounding stays rounding."""
    values = {
        "model": start[0],
        "dataset": start[1],
        "output_dir": output,
        "max_steps": 3,
        "learning_rate": 0.1,
        "adam_epsilon": 1.0,
        "beta_video": 30.0,
        "beta_audio": 10.0,
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "per_device_train_batch_size": 2,
        "lora_r": 4,
        "ema_decay": 0.5,
        "use_cpu": True,
        "disable_tqdm": True,
    } | changes
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def assert_same_training(folder, other):
    """Same losses, rewards, errors, gradients and weights, to the rounding of sums in another order."""
    logs = [
        [{n: v for n, v in line.items() if SHOWN.match(n)} for line in read_log(run) if "loss" in line]
        for run in (folder, other)
    ]
    assert len(logs[0]) == len(logs[1]) == 3
    assert {"loss", "rewards/margins/audio", "error/chosen/video", "grad_share/audio"} < logs[0][0].keys()
    for line, expected in zip(*logs, strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert line == pytest.approx(expected, rel=1e-3, abs=1e-5)
    for part in ("", "ema"):
        first, second = (load_transformer(run / part).state_dict() for run in (folder, other))
        for name, tensor in second.items():
            assert torch.allclose(first[name], tensor, rtol=1e-4, atol=1e-6), name


KINDS = {
    "lora": {},
    "full": {"trainable": "full"},
    "precomputed": {"trainable": "full", "precompute_ref_errors": True},
    "moving": {"trainable": "full", "sync_ref_model": True, "ref_model_sync_steps": 1},
}


def quick(*names):
    """All kinds; those not named are tested in one process as well, and take their time here."""
    return [pytest.param(kind, marks=[] if kind in names else pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize("kind", quick("lora", "precomputed"))
def test_two_processes_make_the_steps_of_one_that_sums_two_batches(start, tmp_path, kind):
    status, notes = in_processes("dpo.train", flags(start, tmp_path / "two", **KINDS[kind]))
    assert status == [0, 0], notes
    assert main(flags(start, tmp_path / "one", gradient_accumulation_steps=2, **KINDS[kind])) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["done"] == 3


@pytest.mark.parametrize("kind", quick("lora", "moving"))
def test_fsdp2_trains_as_one_process_and_resumes_bit_for_bit(start, tmp_path, kind):
    settings = {"save_strategy": "steps", "save_steps": 2, "use_cpu": False} | KINDS[kind]
    argv = flags(start, tmp_path / "two", **settings)
    status, notes = in_processes("dpo.train", argv, sharded=True, **fsdp_variables())
    assert status == [0, 0], notes
    assert main(flags(start, tmp_path / "one", gradient_accumulation_steps=2, **KINDS[kind])) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")

    whole = [line["loss"] for line in read_log(tmp_path / "two") if "loss" in line]
    for name in ("summary.json", "checkpoint-3/trainer_state.json"):  # as if killed while it wrote the last checkpoint
        (tmp_path / "two" / name).unlink()
    argv = [*argv, "--resume_from_checkpoint", "latest"]
    status, notes = in_processes("dpo.train", argv, sharded=True, **fsdp_variables())
    assert status == [0, 0], notes
    assert [line["loss"] for line in read_log(tmp_path / "two") if "loss" in line] == whole
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["skipped"] == 2


def test_ray_train_runs_the_same_command_in_two_processes(start, tmp_path, ray_session, capsys):
    argv = [*flags(start, tmp_path / "two"), "--num_workers", "2"]
    assert main(argv) == 0
    assert "train: wanted 3, done 3 (skipped 0)" in capsys.readouterr().out
    assert main(flags(start, tmp_path / "one", gradient_accumulation_steps=2)) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")
    assert main(argv) == 0
    assert "(skipped 3)" in capsys.readouterr().out
