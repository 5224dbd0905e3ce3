"""Several processes are one training: started by torch's variables, by accelerate's launcher, by Ray Train."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from model.javisdit.network import transformer
from model.javisdit.weights.folders import load_transformer
from model.train.callbacks import read_log
from model.train.command import main
from model.train.launch import run_on_ray
from tests.model.train.latent_rows import make_rows, save_dataset
from tests.model.train.test_train import flags, losses, sample_flags, sampled, save_model  # noqa: F401
from tests.processes import RECIPES, free_port, fsdp_variables, in_processes
from tests.small_latents import small_network

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    root = tmp_path_factory.mktemp("start")
    save_model(root / "model", small_network())
    return root / "model", save_dataset(root / "clips", make_rows(16))


def proportional(start, output, **changes):
    """Adam with an epsilon that makes its steps about proportional to the gradient, so that rounding stays rounding."""
    values = {"adam_epsilon": 1.0, "learning_rate": 0.1, "max_steps": 3, "ema_decay": 0.5}
    if changes.get("trainable") == "lora":
        values["lora_dropout"] = 0.0
    return flags(start, output, **(values | {"save_strategy": "no"} | changes))


def assert_same_training(folder, other):
    """Same losses, gradient norms and weights, to the rounding of sums in another order."""
    shown = re.compile("(loss|grad_norm)(/|$)")
    logs = [
        [{name: value for name, value in line.items() if shown.match(name)} for line in read_log(run)[:-1]]
        for run in (folder, other)
    ]
    assert len(logs[0]) == len(logs[1]) == 3
    assert {"loss", "loss/audio", "grad_norm/audio"} < logs[0][0].keys()
    for line, expected in zip(*logs, strict=True):
        assert line == pytest.approx(expected, rel=1e-4)
    for part in ("", "ema"):
        first, second = (load_transformer(run / part).state_dict() for run in (folder, other))
        for name, tensor in second.items():
            assert torch.allclose(first[name], tensor, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("trainable", ["full", "audio", "lora"])
def test_two_processes_make_the_steps_of_one_that_sums_two_batches(start, tmp_path, trainable):
    argv = proportional(start, tmp_path / "two", trainable=trainable)
    status, notes = in_processes("model.train", argv)
    assert status == [0, 0], notes
    assert main(proportional(start, tmp_path / "one", trainable=trainable, gradient_accumulation_steps=2)) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["done"] == 3


def test_two_processes_make_the_steps_of_one_with_twice_the_batch(start, tmp_path):
    data = start[0], save_dataset(tmp_path / "clips")  # 8 clips, so that an epoch is one step of either
    status, notes = in_processes("model.train", proportional(data, tmp_path / "two"))
    assert status == [0, 0], notes
    assert main(proportional(data, tmp_path / "one", per_device_train_batch_size=8)) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")


def test_processes_that_cannot_speak_to_each_other_are_refused(start, tmp_path):
    if torch.cuda.device_count() > 1:
        pytest.skip("they could")
    status, notes = in_processes(
        "model.train", proportional(start, tmp_path / "out", use_cpu=False), CUDA_VISIBLE_DEVICES=""
    )
    assert status == [2, 2]
    assert all("on CPUs set use_cpu true" in note for note in notes)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_fsdp2_shards_and_writes_whole_models(start, tmp_path, trainable):
    settings = {"trainable": trainable, "save_strategy": "steps", "save_steps": 2, "use_cpu": False}
    argv = proportional(start, tmp_path / "two", **settings)
    status, notes = in_processes("model.train", argv, sharded=True, **fsdp_variables())
    assert status == [0, 0], notes
    assert main(proportional(start, tmp_path / "one", trainable=trainable, gradient_accumulation_steps=2)) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")

    whole = losses(tmp_path / "two")
    for name in ("summary.json", "checkpoint-3/trainer_state.json"):  # as if killed while it wrote the last checkpoint
        (tmp_path / "two" / name).unlink()
    status, notes = in_processes(
        "model.train", [*argv, "--resume_from_checkpoint", "latest"], sharded=True, **fsdp_variables()
    )
    assert status == [0, 0], notes
    assert losses(tmp_path / "two") == whole
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["skipped"] == 2


def test_fsdp2_in_bfloat16_trains_as_one_process(start, tmp_path):
    """As the shipped file asks for: the same operations in bfloat16 as autocast chooses in one process."""
    argv = proportional(start, tmp_path / "two", bf16=True, use_cpu=False)
    status, notes = in_processes("model.train", argv, sharded=True, **fsdp_variables())
    assert status == [0, 0], notes
    assert main(proportional(start, tmp_path / "one", bf16=True, gradient_accumulation_steps=2)) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)


def test_samples_and_unseen_clips_are_looked_at_with_whole_weights(sampled, tmp_path):  # noqa: F811
    settings = {"use_cpu": False, "max_steps": 3, "eval_steps": 1, "eval_dataset": sampled[1], "logging_steps": 1}
    argv = sample_flags(sampled, tmp_path / "two", per_device_train_batch_size=2, **settings)
    status, notes = in_processes("model.train", argv, sharded=True, **fsdp_variables())
    assert status == [0, 0], notes
    assert len(list(tmp_path.glob("two/samples/*/*.mp4"))) == 6
    settings |= {"use_cpu": True, "eval_strategy": "steps", "save_strategy": "no"}
    assert main(flags(sampled, tmp_path / "one", **settings)) == 0  # the same four clips at each step
    evaluated = [
        [line["eval_loss"] for line in read_log(tmp_path / name) if "eval_loss" in line] for name in ("two", "one")
    ]
    assert evaluated[0] == pytest.approx(evaluated[1], rel=1e-3)


@pytest.mark.slow  # each process imports everything anew
def test_accelerate_launch_starts_processes_that_train_together(start, tmp_path):
    argv = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(RECIPES / "ddp.yaml")]
    argv += ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", str(free_port())]
    argv += ["-m", "model.train", *proportional(start, tmp_path / "two")]
    result = subprocess.run(argv, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=180, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert main(proportional(start, tmp_path / "one", gradient_accumulation_steps=2)) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_ray_train_runs_the_same_command_in_two_processes(start, tmp_path, ray_session, capsys):
    argv = [*proportional(start, tmp_path / "two"), "--num_workers", "2"]
    assert main(argv) == 0
    assert "train: wanted 3, done 3 (skipped 0)" in capsys.readouterr().out
    assert main(proportional(start, tmp_path / "one", gradient_accumulation_steps=2)) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")
    assert main(argv) == 0
    assert "(skipped 3)" in capsys.readouterr().out


@pytest.mark.slow  # Ray Train takes a while to start
def test_a_mistake_that_a_ray_worker_finds_is_told_in_a_line(start, tmp_path, ray_session, capsys):
    argv = proportional(start, tmp_path / "out", dataset=tmp_path / "missing")
    assert main([*argv, "--num_workers", "2"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'missing'} holds no prepared clips")


def test_ray_without_gpus_says_how_to_train_on_cpus(tmp_path, ray_session):
    with pytest.raises(ValueError, match=r"has 0 GPUs: .* use_cpu true"):
        run_on_ray("model.train", [], 2, str(tmp_path))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_the_shipped_files(path):
    config = load_config_from_file(str(path))
    assert config.distributed_type.value in ("MULTI_GPU", "FSDP", "DEEPSPEED")
    layer = getattr(config, "fsdp_config", {}).get("fsdp_transformer_layer_cls_to_wrap")
    assert layer is None or hasattr(transformer, layer)
