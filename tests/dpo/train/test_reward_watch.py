"""Samples and scores during a run, its stop on a decline, gradient shares and alarms."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pytest
import torch

from dpo.train.callbacks import TrainingAlarms
from dpo.train.command import main
from dpo.train.metrics import GradientShares
from dpo.train.reward_watch import standardised_gain
from media.clip import AVClip
from model.presets import preset_path
from model.train.callbacks import read_log
from model.train.run_state import latest_checkpoint
from rewards.base import Reward
from tests.dpo.dpo_helpers import make_rows, make_trainer, save_rows

PROMPTS = ["A large red ball bounces.", "A small blue ball bounces."]


class Fading(Reward):
    """Reward whose scores fall with every scored clip, so that each evaluation is worse than the one before."""

    name = "fading"
    version = "1"
    columns = ("audio_quality", "desync")
    higher_is_better: ClassVar = {"audio_quality": True, "desync": False}
    needs = frozenset({"video", "audio"})
    licence = "none"
    seen = 0

    def score(self, clips: list[AVClip], prompts):
        values = [-float(Fading.seen + k) for k in range(len(clips))]
        Fading.seen += len(clips)
        return {"audio_quality": torch.tensor(values), "desync": -torch.tensor(values)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return (model folder that samples in one step, pairs of its shapes)."""
    root = tmp_path_factory.mktemp("sampled")
    parts = {p: str(preset_path("tiny") / p) for p in ("transformer", "video_codec", "audio_codec", "text_encoder")}
    defaults = {"num_frames": 33, "height": 64, "width": 64, "num_inference_steps": 1, "guidance_scale": 1.0}
    (root / "pipeline.json").write_text(json.dumps({"components": parts, "defaults": defaults}))
    return root, save_rows(root / "data", tiny_rows(4), text_len=40)


def _two(rng, shape):
    return rng.standard_normal((2, np.prod(shape))).tolist()


def tiny_rows(num_pairs):
    """Return pairs of noise with the shapes of the tiny preset."""
    rng = np.random.default_rng(0)
    shapes = {"video": [8, 9, 8, 8], "audio": [8, 52, 16]}
    changes = {f"{name}_latents_shape": shape for name, shape in shapes.items()}
    changes |= {"text_embeds": rng.standard_normal(3 * 64).tolist(), "text_length": 3, "text_dim": 64}
    changes |= {"num_frames": 33, "height": 64, "width": 64}
    rows = make_rows(num_pairs, **changes)
    for row in rows:
        for name, shape in shapes.items():
            row[f"chosen_{name}_latents"], row[f"rejected_{name}_latents"] = _two(rng, shape)
    return rows


def flags(data, output, **changes):
    values = {"model": data[0], "dataset": data[1], "output_dir": output, "max_steps": 4, "learning_rate": 1e-4}
    values |= {"warmup_steps": 0, "logging_steps": 1, "save_strategy": "no", "lora_r": 2, "ema_decay": 0}
    values |= {"eval_strategy": "steps", "eval_steps": 1, "use_cpu": True, "disable_tqdm": True} | changes
    argv = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    return [*argv, "--sample_prompts", *PROMPTS]


def evaluations(folder):
    return [line for line in read_log(folder) if any(name.startswith("eval_") for name in line)]


def test_samples_are_scored_by_chosen_and_held_out_rewards_from_the_start_on(data, tmp_path):
    rewards = ["--eval_rewards", "verifiable", "--held_out_rewards", f"{__name__}:Fading"]
    assert main([*flags(data, tmp_path / "out", max_steps=2), *rewards]) == 0
    lines = evaluations(tmp_path / "out")
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all("eval_scores/visual_quality" in line for line in lines)
    assert lines[0]["eval_held_out/gain"] == 0.0
    # scores 0, -1 at the start (deviation 0.5), -2, -3 after a step; desync rises equally, which is worse
    assert [line["eval_held_out/gain"] for line in lines[1:]] == [-4.0, -8.0]
    kept = json.loads((tmp_path / "out" / "samples" / "step-0000001" / "scores.json").read_text())
    measured = kept["scores"]["eval_scores"]["visual_quality"]
    assert lines[1]["eval_scores/visual_quality"] == pytest.approx(sum(measured) / 2)
    assert len(list((tmp_path / "out" / "samples" / "step-0000002").glob("*.mp4"))) == 2


@pytest.mark.parametrize(("limit", "last"), [(1.0, 2), (100.0, 4)])
def test_run_stops_after_two_evaluations_in_a_row_below_the_start(data, tmp_path, limit, last):
    argv = [*flags(data, tmp_path / "out", stop_on_decline=limit), "--held_out_rewards", f"{__name__}:Fading"]
    assert main(argv) == 0
    assert [line["step"] for line in read_log(tmp_path / "out") if "loss" in line][-1] == last
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["done"] == last


def test_resumed_run_goes_on_counting_declines(data, tmp_path):
    argv = flags(data, tmp_path / "out", stop_on_decline=1.0, save_strategy="steps", save_steps=1)
    argv += ["--held_out_rewards", f"{__name__}:Fading"]
    assert main(argv) == 0
    (tmp_path / "out" / "summary.json").unlink()
    (tmp_path / "out" / "checkpoint-2" / "trainer_state.json").unlink()
    assert latest_checkpoint(tmp_path / "out").name == "checkpoint-1"
    assert main([*argv, "--resume_from_checkpoint", "latest"]) == 0
    assert [line["eval_held_out/declines"] for line in evaluations(tmp_path / "out")] == [0, 1, 2]


def test_rewards_that_are_none_are_refused_before_a_step(data, tmp_path, capsys):
    assert main([*flags(data, tmp_path / "out"), "--eval_rewards", "verifyable"]) == 2
    assert "verifiable" in capsys.readouterr().err
    assert not (tmp_path / "out" / "run.json").exists()  # the folder is still free


def test_gain_counts_what_is_better_in_deviations_of_the_start_and_skips_what_is_missing():
    start = {"a": [1.0, 3.0, None], "b": [0.0, 4.0, 2.0], "same": [1.0, 1.0, 1.0]}
    now = {"a": [2.0, 4.0, 9.0], "b": [0.0, None, 2.0], "same": [5.0, 5.0, 5.0]}
    better = {"a": True, "b": False, "same": True}
    assert standardised_gain(start, now, better) == pytest.approx((1 + 1 + 0 + 0) / 4)
    assert standardised_gain({"same": [1.0, 1.0]}, {"same": [2.0, 2.0]}, better) == 0.0


def shares(folder, **settings):
    trainer = make_trainer(folder, max_steps=1, beta_video=10.0, beta_audio=10.0, **settings)
    trainer.train()
    line = next(line for line in read_log(folder) if "loss" in line)
    return {name: line[f"grad_share/{name}"] for name in ("video", "audio")}


def test_gradient_shares_sum_to_one_and_follow_the_weights_exactly(tmp_path):
    equal = shares(tmp_path / "a")
    weighted = shares(tmp_path / "b", video_weight=3.0)
    assert sum(equal.values()) == pytest.approx(1.0)
    odds = [share["video"] / share["audio"] for share in (equal, weighted)]
    assert odds[1] == pytest.approx(3 * odds[0], rel=1e-4)
    alone = shares(tmp_path / "c", audio_weight=0.0)
    assert alone == {"video": 1.0, "audio": 0.0}


def test_gradient_shares_are_norms_of_the_gradient_of_the_predictions():
    predictions = {name: torch.ones(2, 3, requires_grad=True) for name in ("video", "audio")}
    meter = GradientShares()
    for scale in (1.0, 2.0):  # two micro-batches
        outputs = {name: value * 1.0 for name, value in predictions.items()}
        meter.watch(outputs)
        (scale * outputs["video"].sum() + 3 * scale * outputs["audio"].sum()).backward()
    assert meter.drain(lambda values: values) == pytest.approx({"grad_share/video": 0.25, "grad_share/audio": 0.75})
    assert meter.drain(lambda values: values) == {}


def test_errors_and_margins_are_told_by_noise_level_and_agree_with_the_mean(tmp_path):
    make_trainer(tmp_path, make_rows(8), max_steps=4, logging_steps=4, logging_first_step=False).train()
    line = next(line for line in read_log(tmp_path) if "loss" in line)
    for metric in ("rewards/margins", "error/chosen", "error/rejected", "ref_error/chosen", "ref_error/rejected"):
        for name in ("video", "audio"):
            bins = [value for key, value in line.items() if key.startswith(f"{metric}/{name}/sigma_")]
            assert bins
            assert min(bins) <= line[f"{metric}/{name}"] <= max(bins)


def test_warns_when_a_modality_goes_unheard(caplog):
    alarm = TrainingAlarms(window=20)

    def run(first_step, share):
        for step in range(first_step, first_step + 50, 10):
            state = type("State", (), {"global_step": step, "is_world_process_zero": True})
            logs = {"grad_share/video": 1 - share, "grad_share/audio": share}
            alarm.on_log(None, state, None, logs)

    run(10, 0.3)
    assert not caplog.records
    run(60, 0.001)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "come from audio over the last 20 steps" in messages[0]
    assert "Raise audio_weight or beta_audio" in messages[0]
