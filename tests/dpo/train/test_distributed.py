"""Preference training in several processes: with torch's variables (DDP), sharded (FSDP2) and with Ray Train."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dpo.train.command import main
from model.javisdit.weights.folders import load_transformer
from model.lora import attach_adapter
from model.presets import preset_path
from model.train.callbacks import read_log
from model.train.joint_trainer import save_adapter
from tests.dpo.dpo_helpers import lora, make_rows, save_model, save_rows
from tests.processes import RECIPES, free_port, fsdp_variables, in_processes
from tests.small_latents import small_network

ROOT = Path(__file__).parents[3]
SHOWN = re.compile(r"(loss|grad_norm|grad_share|rewards/\w+|(ref_)?error/\w+)(/(dpo|fm))?(/(video|audio|shared))?$")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Return (model folder, training dataset of 12 pairs)."""
    root = tmp_path_factory.mktemp("start")
    return save_model(root / "model", small_network()), save_rows(root / "data", make_rows(12))


def flags(start, output, **changes):
    """Return flags with a large epsilon of Adam, so that steps are about proportional to the gradient.

    Otherwise, Adam would amplify rounding errors.
    """
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
    if values.get("trainable") == "full":
        del values["lora_r"]
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def assert_same_training(folder, other):
    """Assert equal losses, rewards, errors, gradients and weights, up to rounding of sums in another order."""
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
    """Return all kinds of training; kinds not named are marked slow, as they are also tested in one process."""
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


@pytest.mark.parametrize("sharded", [pytest.param(False, marks=pytest.mark.slow), True])
def test_continued_adapter_in_two_processes(start, tmp_path, sharded):
    """The frozen copy of the adapter, sharded as well, is switched on for the reference and off again."""
    settings = lora(r=3, base_model_name_or_path=str(start[0]))
    adapted = attach_adapter(small_network(), settings, seed=1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(adapted, tmp_path / "sft", None)
    data = tmp_path / "sft", start[1]
    argv = flags(data, tmp_path / "two", adapter="continue", lora_r=3, use_cpu=not sharded)
    status, notes = in_processes("dpo.train", argv, sharded=sharded, **(fsdp_variables() if sharded else {}))
    assert status == [0, 0], notes
    assert main(flags(data, tmp_path / "one", adapter="continue", lora_r=3, gradient_accumulation_steps=2)) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")
    assert read_log(tmp_path / "two")[0]["rewards/margins/audio"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.slow  # each process imports all packages again
def test_accelerate_launch_starts_processes_that_train_together(start, tmp_path):
    argv = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(RECIPES / "ddp.yaml")]
    argv += ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", str(free_port())]
    argv += ["-m", "dpo.train", *flags(start, tmp_path / "two")]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(argv, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=180, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert main(flags(start, tmp_path / "one", gradient_accumulation_steps=2)) == 0
    assert_same_training(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow  # samples and scores
def test_first_process_scores_and_all_of_them_stop(tmp_path):
    parts = {p: str(preset_path("tiny") / p) for p in ("transformer", "video_codec", "audio_codec", "text_encoder")}
    defaults = {"num_frames": 33, "height": 64, "width": 64, "num_inference_steps": 1, "guidance_scale": 1.0}
    (tmp_path / "pipeline.json").write_text(json.dumps({"components": parts, "defaults": defaults}))
    video, audio = [8, 9, 8, 8], [8, 52, 16]
    rows = make_rows(4, video_latents_shape=video, audio_latents_shape=audio, text_embeds=[0.1] * 64, text_length=1)
    for row in rows:
        row |= {"text_dim": 64, "num_frames": 33, "height": 64, "width": 64}
        for side, value in (("chosen", 0.5), ("rejected", -0.5)):
            row |= {f"{side}_video_latents": [value] * 4608, f"{side}_audio_latents": [value] * 6656}
    data = tmp_path, save_rows(tmp_path / "data", rows, text_len=40)
    changes = {"eval_strategy": "steps", "eval_steps": 1, "stop_on_decline": 0.01, "learning_rate": 1.0}
    argv = flags(data, tmp_path / "out", per_device_train_batch_size=1, ema_decay=0, **changes)
    argv += ["--held_out_rewards", "verifiable", "--sample_prompts", "A red ball bounces.", "A blue ball bounces."]
    status, notes = in_processes("dpo.train", argv)
    assert status == [0, 0], notes
    gains = [line["eval_held_out/gain"] for line in read_log(tmp_path / "out") if "eval_held_out/gain" in line]
    done = json.loads((tmp_path / "out" / "summary.json").read_text())["done"]
    assert len(gains) == done + 1
    assert gains[0] == 0.0


@pytest.mark.parametrize("kind", quick("lora", "moving"))
def test_sharded_in_bfloat16_too_the_policy_begins_at_its_reference(start, tmp_path, kind):
    settings = {"use_cpu": False, "bf16": True, "beta_video": 3000.0, "beta_audio": 1000.0, "max_steps": 1}
    argv = flags(start, tmp_path / "two", **(KINDS[kind] | settings))
    status, notes = in_processes("dpo.train", argv, sharded=True, **fsdp_variables())
    assert status == [0, 0], notes
    first = read_log(tmp_path / "two")[0]
    for name in ("video", "audio"):
        assert first[f"rewards/margins/{name}"] == 0.0
