"""The flow-matching trainer: the loss, what trains, what is logged, and the same numbers after a restart."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from model.data.batches import RowKey
from model.data.latent_dataset import FlowCollator
from model.lora import attach_adapter
from model.train.callbacks import read_log
from model.train.ema import EMA_NAME
from model.train.freezing import branch_of, freeze_for_audio_stage
from model.train.trainer import FlowMatchingTrainer, velocity_errors
from tests.model.javisdit.small_model import published_adapter
from tests.model.train.latent_rows import make_dataset, make_rows, read_lines, settings
from tests.small_latents import AUDIO_SHAPE, CONFIG, small_network

TIMES = re.compile("per_second|memory|runtime|train_loss|flos")


@pytest.fixture(autouse=True)
def few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_trainer(folder, model=None, rows=None, eval_dataset=None, modalities=("video", "audio"), **changes):
    model = small_network() if model is None else model
    dataset = make_dataset(rows, modalities)
    return FlowMatchingTrainer(model, settings(folder, **changes), dataset, eval_dataset=eval_dataset)


def numbers(folder):
    """The log without what a clock or the machine decides."""
    return [{name: value for name, value in line.items() if not TIMES.search(name)} for line in read_log(folder)]


def test_loss_is_the_weighted_sum_of_mean_squared_velocity_errors(tmp_path):
    model = small_network().eval()
    trainer = make_trainer(tmp_path, model, video_weight=0.5, audio_weight=2.0, text_dropout=0.0)
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, batch)
    sigma = batch["timestep"] / 1000
    expected = 0.0
    for name, weight in (("video", 0.5), ("audio", 2.0)):
        data, noise = batch[name], batch[f"{name}_noise"]
        mix = sigma.view(-1, *[1] * (data.ndim - 1))
        noisy = dict.fromkeys(("video", "audio"))
        for other in noisy:
            shaped = sigma.view(-1, *[1] * (batch[other].ndim - 1))
            noisy[other] = (1 - shaped) * batch[other] + shaped * batch[f"{other}_noise"]
        velocity = model(noisy["video"], noisy["audio"], batch["timestep"], batch["text"], batch["text_mask"])
        assert mix.shape[0] == 4
        expected += weight * (getattr(velocity, name) - (noise - data)).square().mean()
    assert torch.allclose(loss, expected, rtol=1e-5)


def test_a_dropped_caption_becomes_the_negative_prompt():
    dataset = make_dataset()
    samples = [dataset[RowKey(row, 0)] for row in range(8)]
    dropped = FlowCollator(0, dataset.negative_text, text_dropout=0.999)(samples)
    kept = FlowCollator(0, dataset.negative_text, text_dropout=0.0)(samples)
    assert torch.equal(dropped["text"], dataset.negative_text.expand(8, -1, -1))
    assert all(torch.equal(kept["text"][i][: len(s.text)], s.text) for i, s in enumerate(samples))
    assert torch.equal(dropped["video_noise"], kept["video_noise"])


def test_draws_belong_to_the_clip_and_the_epoch_not_to_the_batch():
    dataset = make_dataset()
    collate = FlowCollator(7, dataset.negative_text)
    together = collate([dataset[RowKey(row, 1)] for row in (0, 1, 2)])
    alone = collate([dataset[RowKey(1, 1)]])
    later = collate([dataset[RowKey(1, 2)]])
    for name in ("video_noise", "audio_noise", "timestep"):
        assert torch.equal(together[name][1], alone[name][0])
        assert not torch.equal(alone[name], later[name])


def test_killed_and_resumed_run_repeats_the_losses_bit_for_bit(tmp_path):
    for optimizer, workers in (("adamw", 0), ("muon", 2)):
        whole, broken = tmp_path / f"whole-{optimizer}", tmp_path / f"broken-{optimizer}"
        changes = {
            "max_steps": 7,  # ends within the fourth epoch of two batches
            "save_strategy": "steps",
            "save_steps": 3,
            "optimizer": optimizer,
            "dataloader_num_workers": workers,
            "lr_scheduler_type": "linear",
        }
        make_trainer(whole, **changes).train()
        first = make_trainer(broken, **changes)
        first.add_callback(StopAt(5))
        with pytest.raises(KeyboardInterrupt):
            first.train()
        make_trainer(broken, **changes).train(resume_from_checkpoint=str(broken / "checkpoint-3"))
        assert numbers(broken) == numbers(whole)
        assert len(numbers(whole)) == 8
        for name in ("model.safetensors", EMA_NAME):
            pair = [load_file(folder / "checkpoint-6" / name) for folder in (whole, broken)]
            assert all(torch.equal(pair[0][key], pair[1][key]) for key in pair[0])


def test_lora_run_resumes_bit_for_bit_with_dropout(tmp_path):
    def adapted():
        return attach_adapter(small_network(), published_adapter(), seed=3)

    changes = {"max_steps": 5, "save_strategy": "steps", "save_steps": 2, "ema_decay": 0.9}
    make_trainer(tmp_path / "whole", adapted(), **changes).train()
    first = make_trainer(tmp_path / "broken", adapted(), **changes)
    first.add_callback(StopAt(3))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    again = make_trainer(tmp_path / "broken", adapted(), **changes)
    again.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-2"))
    assert numbers(tmp_path / "broken") == numbers(tmp_path / "whole")


def test_average_follows_the_published_rule_and_covers_what_trains_alone(tmp_path):
    model = small_network()
    freeze_for_audio_stage(model)
    trainer = make_trainer(tmp_path, model, modalities=("audio",), max_steps=3, ema_decay=0.8)
    expected = {}

    class Recorder(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            for name, parameter in trainer.model.named_parameters():
                if parameter.requires_grad:
                    expected[name].lerp_(parameter.detach(), 0.2)

    expected |= {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.add_callback(Recorder())
    trainer.train()
    assert trainer.average.weights.keys() == expected.keys()
    assert all(torch.allclose(trainer.average.weights[name], value) for name, value in expected.items())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with trainer.averaged():
        assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_stage_1_leaves_every_video_parameter_as_it_was(tmp_path):
    model = small_network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    freeze_for_audio_stage(model)
    make_trainer(tmp_path, model, modalities=("audio",), max_steps=3, learning_rate=1e-2).train()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(branch_of(name) == "audio" for name in changed)


def test_log_tells_losses_norms_and_speed_and_parts_add_up(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=4, logging_steps=2)
    trainer.train()
    line = read_lines(tmp_path)[-2]
    assert line["loss"] == pytest.approx(line["loss/video"] + line["loss/audio"], rel=1e-5)
    branches = [line[f"grad_norm/{branch}"] for branch in ("video", "audio", "shared")]
    assert line["grad_norm"] == pytest.approx(sum(norm**2 for norm in branches) ** 0.5, rel=1e-5)
    assert line["tokens_per_second"] > 0
    assert line["memory_gib"] > 0
    bins = [line[name] for name in line if name.startswith("loss/video/sigma_")]
    assert min(bins) <= line["loss/video"] <= max(bins)


def test_evaluation_uses_the_same_draws_every_time(tmp_path):
    held_out = make_dataset(make_rows(5, first=100))
    trainer = make_trainer(tmp_path, eval_dataset=held_out, eval_strategy="steps", eval_steps=2, learning_rate=0.0)
    trainer.train()
    evaluations = [line for line in read_lines(tmp_path) if "eval_loss" in line]
    assert len(evaluations) == 2
    assert evaluations[0]["eval_loss"] == evaluations[1]["eval_loss"]
    model = small_network().eval()
    collate = FlowCollator(42, held_out.negative_text)
    batch = collate([held_out[RowKey(row, 0)] for row in range(5)])
    with torch.no_grad():
        errors = velocity_errors(model, batch)
    assert evaluations[0]["eval_loss/audio"] == pytest.approx(errors["audio"].mean().item(), rel=1e-5)


def test_mixed_shapes_train_side_by_side_within_a_token_budget(tmp_path):
    rows = make_rows(6) + make_rows(4, video_shape=(4, 5, 4, 4), first=50, num_frames=17)
    trainer = make_trainer(tmp_path, rows=rows, tokens_per_batch=64, max_steps=2)
    short = CONFIG.num_tokens({"video": (3, 4, 4), "audio": AUDIO_SHAPE[1:]})
    long = CONFIG.num_tokens({"video": (5, 4, 4), "audio": AUDIO_SHAPE[1:]})
    sizes = {}
    for batch in trainer.get_train_dataloader():
        sizes.setdefault(batch["video"].shape[2], []).append(len(batch["timestep"]))
    assert (short, long) == (20, 28)
    assert max(sizes[3]) == 64 // short
    assert max(sizes[5]) == 64 // long
    trainer.train()


def test_one_clip_of_another_codec_among_many_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="has 5 video channels, the model expects 4"):
        make_trainer(tmp_path, rows=make_rows(6) + make_rows(1, video_shape=(5, 3, 4, 4), first=50))


def test_warm_up_is_the_published_one(tmp_path):
    make_trainer(tmp_path, max_steps=5, warmup_steps=3, learning_rate=1e-4).train()
    rates = [line["learning_rate"] for line in read_lines(tmp_path) if "learning_rate" in line]
    # transformers logs the rate before it steps the schedule: that of the step just made
    assert rates == pytest.approx([0.25e-4, 0.5e-4, 0.75e-4, 1e-4, 1e-4])


def test_gradient_checkpointing_changes_no_number(tmp_path):
    make_trainer(tmp_path / "plain").train()
    make_trainer(tmp_path / "checkpointing", gradient_checkpointing=True).train()
    plain, checkpointing = numbers(tmp_path / "plain"), numbers(tmp_path / "checkpointing")
    assert [line.get("loss") for line in plain] == [line.get("loss") for line in checkpointing]


def test_diverged_loss_stops_and_names_the_clips(tmp_path):
    model = small_network()
    trainer = make_trainer(tmp_path, model)
    next(model.parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="step 1, with c"):
        trainer.train()


def test_data_of_another_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="4 video channels, the model expects 8"):
        make_trainer(tmp_path, small_network(video_channels=8))
    with pytest.raises(ValueError, match="requires a gradient"):
        make_trainer(tmp_path, small_network().requires_grad_(False))
    with pytest.raises(ValueError, match="clips without video"):
        make_dataset(make_rows(2, video_shape=None))


def test_settings_that_cannot_work_say_what_to_change(tmp_path):
    for changes, message in (
        ({"text_dropout": 1.0}, "published is 0.1"),
        ({"ema_decay": 1.0}, "published is 0.99"),
        ({"video_weight": 0.0, "audio_weight": 0.0}, "nothing would train"),
        ({"output_dir": None}, "set --output_dir"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            settings(tmp_path, **changes)


class StopAt(TrainerCallback):
    """Ends a run as a signal would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt
