"""The NFT trainer on networks of milliseconds: direction of a step, shared draws, failures, resume, probe, alarms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from peft import PeftModel

from dpo.loss.reference import velocities
from dpo.train.callbacks import DistanceAlarms
from dpo.train.config import NFTConfig
from dpo.train.nft_trainer import NFTTrainer
from dpo.train.preference_trainer import noisy_rows
from model.lora import attach_adapter
from model.train.callbacks import read_log
from tests.dpo.dpo_helpers import GROUP_REWARDS, lora, make_group_rows, make_groups, make_nft_trainer, tiny_model

# Steps proportional to the gradient, up to its fourth power: Adam would amplify rounding.
PLAIN_STEPS = {"adam_epsilon": 1.0, "learning_rate": 1.0, "text_dropout": 0.0, "ema_decay": 0.0}


def losses(folder):
    return [line["loss"] for line in read_log(folder) if "loss" in line]


def trained_weights(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}


def after_training(folder, rows=None, **settings):
    """Return the trained weights after a run."""
    trainer = make_nft_trainer(folder, rows, **(PLAIN_STEPS | settings))
    trainer.train()
    return trained_weights(trainer)


def loud_rows(num_groups=3, group_size=4, seed=0, first_id=0):
    """Candidates whose scores are the mean of their own latents, times their standard deviation."""
    rows = make_group_rows(num_groups, group_size, seed, first_id=first_id)
    for row in rows:
        row["visual_quality"] = float(np.mean(row["video_latents"])) * 14
        row["audio_quality"] = float(np.mean(row["audio_latents"])) * 8
        row["desync"] = -row["audio_quality"]
    return rows


def negated(rows):
    return [row | {name: -row[name] for name in ("visual_quality", "audio_quality", "desync")} for row in rows]


@pytest.mark.parametrize("form", ["plain", "adaptive"])
def test_opposite_scores_make_the_opposite_first_step(tmp_path, form):
    start = trained_weights(make_nft_trainer(tmp_path))
    settings = {"max_steps": 1, "nft_form": form, "adv_scale": "group", "learning_rate": 1e-3}
    one, other = (
        after_training(tmp_path / name, rows, **settings)
        for name, rows in (("one", make_group_rows()), ("other", negated(make_group_rows())))
    )
    moved = [name for name, value in start.items() if not torch.equal(one[name], value)]
    assert any("lora_B" in name for name in moved)
    for name in moved:
        torch.testing.assert_close(one[name] - start[name], start[name] - other[name], rtol=1e-3, atol=1e-9)


def test_a_run_begins_at_the_old_policy_and_trains_the_adapter_alone(tmp_path):
    trainer = make_nft_trainer(tmp_path, max_steps=3, learning_rate=1e-2)
    assert all("lora_" in name for name in trained_weights(trainer))
    trainer.train()
    log = [line for line in read_log(tmp_path) if "loss" in line]
    for name in ("video", "audio"):
        assert log[0][f"distance/old/{name}"] == log[0][f"signal/{name}"] == 0.0
        assert f"probe/{name}" not in log[0]
        assert log[0][f"error/policy/{name}"] == log[0][f"error/old/{name}"]
        assert log[0][f"loss/nft/{name}"] == pytest.approx(log[0][f"error/old/{name}"], rel=1e-6)
        assert log[2][f"distance/old/{name}"] > 0
        assert any(key.startswith(f"error/old/{name}/sigma_") for key in log[0])
    inputs = next(iter(trainer.get_train_dataloader()))
    noisy, _ = noisy_rows(inputs)
    fresh = tiny_model()
    with torch.no_grad():
        assert torch.equal(trainer.reference(noisy)["video"], fresh(**noisy).video)
        assert not torch.equal(trainer.reference(noisy)["audio"], velocities(trainer.model, noisy)["audio"])


def test_the_loss_has_the_weights_and_the_clip_of_the_settings(tmp_path):
    settings = {"max_steps": 1, "text_dropout": 0.0, "video_weight": 2.0, "audio_weight": 0.5, "adv_clip": 3.0}
    make_nft_trainer(tmp_path, **settings).train()
    first = read_log(tmp_path)[0]
    expected = 3.0 * (2.0 * first["loss/nft/video"] + 0.5 * first["loss/nft/audio"])
    assert first["loss"] == pytest.approx(expected, rel=1e-5)


def test_with_shared_draws_candidates_that_are_alike_cancel(tmp_path):
    """Equal clips with different scores: under one noise and timestep, their pulls sum to zero."""
    rows = make_group_rows(2)
    rows = [row | {name: rows[0][name] for name in ("video_latents", "audio_latents")} for row in rows]
    start = trained_weights(make_nft_trainer(tmp_path, rows))

    def distance(folder, **settings):
        after = after_training(folder, rows, max_steps=1, adv_clip=9.0, **settings)
        return max((after[name] - value).abs().max().item() for name, value in start.items())

    own = distance(tmp_path / "own")
    assert own > 1e-5
    assert distance(tmp_path / "shared", shared_draws=True) < 1e-3 * own


@pytest.mark.parametrize("size", [1, 2])
def test_parts_of_groups_over_several_batches_make_the_step_of_whole_groups(tmp_path, size):
    settings = {"shared_draws": True, "max_steps": 2}
    whole = after_training(tmp_path / "whole", **settings)
    parts = after_training(
        tmp_path / "parts", per_device_train_batch_size=size, gradient_accumulation_steps=4 // size, **settings
    )
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-6)


def test_batches_and_steps_that_would_cut_groups_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is 3, but groups have 4 candidates"):
        make_nft_trainer(tmp_path, shared_draws=True, per_device_train_batch_size=3)
    with pytest.raises(ValueError, match=r"spread over 2 batches, but a step has 3 .*give a multiple of 2"):
        make_nft_trainer(tmp_path, shared_draws=True, per_device_train_batch_size=2, gradient_accumulation_steps=3)
    make_nft_trainer(tmp_path, per_device_train_batch_size=3)


def test_a_failed_score_costs_its_own_candidate_alone(tmp_path):
    rows = make_group_rows()
    rows[5]["desync"] = math.nan
    trainer = make_nft_trainer(tmp_path, rows, max_steps=-1, num_train_epochs=2)
    seen = [name for batch in trainer.get_train_dataloader() for name in batch["candidate_id"]]
    assert sorted(seen) == sorted(row["candidate_id"] for row in rows if row is not rows[5])
    trainer.train()
    assert all(math.isfinite(loss) for loss in losses(tmp_path))


@pytest.mark.parametrize("kind", [{}, {"peft_config": False, "learning_rate": 1e-4}], ids=["lora", "full"])
@pytest.mark.parametrize("stop_at", [2, 3])
def test_resume_gives_the_same_losses_and_weights(tmp_path, kind, stop_at):
    """Stops within an epoch (3 steps each) and at its end."""
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": None, "max_steps": 5} | kind
    whole, parts, resumed = (make_nft_trainer(tmp_path / name, **settings) for name in ("whole", "parts", "parts"))
    whole.train()
    parts.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop_at}"))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert len(set(losses(tmp_path / "whole"))) == 5
    for name, value in trained_weights(whole).items():
        assert torch.equal(trained_weights(resumed)[name], value)


def test_full_fine_tuning_keeps_a_frozen_copy_as_the_old_policy(tmp_path):
    trainer = make_nft_trainer(tmp_path, peft_config=False, max_steps=3)
    trainer.train()
    log = [line for line in read_log(tmp_path) if "loss" in line]
    assert log[0]["distance/old/audio"] == 0.0 < log[2]["distance/old/audio"]
    noisy, _ = noisy_rows(next(iter(trainer.get_train_dataloader())))
    with torch.no_grad():
        assert torch.equal(trainer.reference(noisy)["video"], tiny_model()(**noisy).video)


def test_a_continued_adapter_starts_from_its_own_policy(tmp_path):
    model = attach_adapter(tiny_model(), lora(), seed=0)
    assert isinstance(make_nft_trainer(tmp_path, model=model, peft_config=False).model, PeftModel)


def test_distance_to_the_reference_is_held_by_its_weight(tmp_path):
    settings = {"max_steps": 12, "learning_rate": 3e-3, "text_dropout": 0.0, "logging_steps": 12}
    make_nft_trainer(tmp_path / "free", **settings).train()
    make_nft_trainer(tmp_path / "held", kl_weight_video=300.0, kl_weight_audio=300.0, **settings).train()
    free, held = ([line for line in read_log(tmp_path / name) if "loss" in line][-1] for name in ("free", "held"))
    for name in ("video", "audio"):
        assert held[f"distance/old/{name}"] < 0.7 * free[f"distance/old/{name}"]
        assert held[f"kl/{name}"] == held[f"distance/old/{name}"]


@pytest.mark.parametrize("settings", [{}, {"shared_draws": True}, {"nft_form": "adaptive"}], ids=str)
def test_a_few_steps_raise_the_signal_on_the_groups_that_train(tmp_path, settings):
    settings = {"max_steps": 30, "learning_rate": 3e-3, "text_dropout": 0.0, "eval_strategy": "steps"} | settings
    trainer = make_nft_trainer(tmp_path, loud_rows(), eval_rows=loud_rows(), eval_steps=10, **settings)
    trainer.train()
    lines = [line for line in read_log(tmp_path) if "eval_probe/video" in line]
    assert len(lines) == 3
    for name in ("video", "audio"):
        signals = [line[f"eval_signal/{name}"] for line in lines]
        assert 0 < signals[0] < signals[1] < signals[2]
        for line in lines:
            expected = line[f"eval_signal/{name}"] / line[f"eval_distance/old/{name}"]
            assert line[f"eval_probe/{name}"] == pytest.approx(expected, rel=1e-6)


def test_probe_finds_a_step_along_the_rewards_of_other_groups_and_not_of_shuffled_ones(tmp_path):
    """The rewards are the same functions of the latents in all groups, so a step along them generalises."""
    settings = {"max_steps": 24, "learning_rate": 2e-3, "text_dropout": 0.0, "shared_draws": True}
    settings |= {"eval_strategy": "steps", "eval_steps": 24, "per_device_train_batch_size": 8}
    probes = {}
    for control in (False, True):
        make_nft_trainer(
            tmp_path / str(control),
            loud_rows(16, 8),
            eval_rows=loud_rows(8, 8, seed=5, first_id=100),
            shuffle_advantages=control,
            **settings,
        ).train()
        line = next(line for line in read_log(tmp_path / str(control)) if "eval_probe/audio" in line)
        probes[control] = line["eval_signal/audio"]
    assert probes[False] > 0
    assert probes[True] < 0.5 * probes[False]


def test_unseen_groups_are_measured_at_the_same_draws_every_time(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 3, "learning_rate": 0.0}
    rows = make_group_rows(2, seed=9, first_id=50)
    rows[1]["audio_quality"] = math.nan
    make_nft_trainer(tmp_path, eval_rows=rows, **settings).train()
    numbers = [
        {n: v for n, v in line.items() if n.startswith("eval_")}
        for line in read_log(tmp_path)
        if "eval_r/video" in line
    ]
    assert len(numbers) == 3
    assert numbers[0] == numbers[1] == numbers[2]
    assert numbers[0]["eval_signal/video"] == 0.0


def test_evaluation_by_other_rewards_is_refused(tmp_path):
    rows = make_group_rows(2, seed=9, first_id=50)
    fewer = {name: GROUP_REWARDS[name] for name in ("visual_quality", "audio_quality")}
    args = NFTConfig(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match=r"would be measured by visual_quality, audio_quality, but .*, desync train"):
        NFTTrainer(tiny_model(), args, make_groups(), eval_dataset=make_groups(rows, fewer), peft_config=lora())


def test_warns_when_the_policy_has_left_the_old_one(caplog):
    alarm = DistanceAlarms(window=20)
    for step in range(10, 110, 10):
        logs = {f"error/old/{name}": 2.0 for name in ("video", "audio")}
        logs |= {f"distance/old/{name}": 0.01 * step * (name == "audio") for name in ("video", "audio")}
        state = type("State", (), {"global_step": step, "is_world_process_zero": True})
        alarm.on_log(None, state, None, logs | {"grad_share/video": 0.99, "grad_share/audio": 0.01})
    gap, share = (record.getMessage() for record in caplog.records)
    assert "between the audio velocities of the policy and of the old policy" in gap
    assert share.startswith("Only 1.0 % of the gradient has come from audio")
    assert share.endswith("Raise audio_weight.")


def test_diverged_loss_stops_the_run_and_names_candidates(tmp_path):
    model = tiny_model()
    trainer = make_nft_trainer(tmp_path, model=model)
    next(model.parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="step 1, with candidate 'p"):
        trainer.train()


def test_groups_of_several_geometries_train_in_one_run(tmp_path):
    rows = make_group_rows(2) + make_group_rows(2, video_shape=(4, 2, 4, 4), first_id=2)
    make_nft_trainer(tmp_path, rows, max_steps=-1, num_train_epochs=1, shared_draws=True).train()
    assert len(losses(tmp_path)) == 4
