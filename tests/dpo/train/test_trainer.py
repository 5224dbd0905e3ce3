from __future__ import annotations

import json
import math

import pytest
import torch
from peft import PeftModel

from dpo.loss.lora import PairedDropout, reference_model, share_dropout
from dpo.train.callbacks import TrainingAlarms
from dpo.train.trainer import noisy_pairs
from model.lora import attach_adapter
from model.train.callbacks import LOG_NAME, read_log
from tests.dpo.dpo_helpers import identical_pairs, lora, make_dataset, make_rows, make_trainer, tiny_model


def losses(folder):
    return [line["loss"] for line in read_log(folder) if "loss" in line]


def batch_of(trainer):
    return next(iter(trainer.get_train_dataloader()))


def test_one_step_trains_only_the_adapter_and_the_reference_stays_the_base(tmp_path):
    base = tiny_model()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    trainer = make_trainer(tmp_path, model=base, max_steps=1)
    trainable = [name for name, value in trainer.model.named_parameters() if value.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)
    adapters = {name: trainer.model.get_parameter(name).detach().clone() for name in trainable}
    trainer.train()
    assert any(not torch.equal(trainer.model.get_parameter(name), value) for name, value in adapters.items())

    fresh = tiny_model()
    arguments, _ = noisy_pairs(batch_of(trainer))
    with reference_model(trainer.model):
        reference = trainer.model(**arguments)
    with torch.no_grad():
        assert torch.equal(reference.video, fresh(**arguments).video)
        assert not torch.equal(trainer.model(**arguments).video, reference.video)
    state = trainer.model.get_base_model().state_dict()
    for name, value in before.items():
        kept = state.get(
            name, state.get(name.replace(".weight", ".base_layer.weight").replace(".bias", ".base_layer.bias"))
        )
        assert torch.equal(kept, value)


def test_first_step_is_log_2_per_modality_with_zero_margins(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1, fm_weight=0.0)
    trainer.train()
    first = read_log(tmp_path)[0]
    assert first["loss"] == pytest.approx(2 * math.log(2), abs=1e-6)
    for name in ("video", "audio"):
        assert first[f"rewards/margins/{name}"] == 0.0
        assert first[f"error/chosen/{name}"] == first[f"ref_error/chosen/{name}"]


def test_flow_matching_weights_reach_the_loss_by_modality(tmp_path):
    """At the first step the preference terms are log 2; the rest is the weighted error of one modality."""
    make_trainer(tmp_path, max_steps=1, fm_weight=0.0, fm_weight_audio=3.0).train()
    first = read_log(tmp_path)[0]
    assert first["loss"] == pytest.approx(2 * math.log(2) + 3 * first["error/chosen/audio"], rel=1e-5)


def test_reference_pass_leaves_the_adapter_trainable(tmp_path):
    model = share_dropout(attach_adapter(tiny_model(), lora(), seed=0)).train()
    with reference_model(model):
        assert not model.training
    assert model.training
    assert all(value.requires_grad for name, value in model.named_parameters() if "lora_" in name)


def test_identical_pair_has_no_preference_even_under_dropout(tmp_path):
    rows = identical_pairs(make_rows())
    trainer = make_trainer(
        tmp_path, rows, peft_config=lora(lora_dropout=0.5), max_steps=3, text_dropout=0.5, fm_weight=5.0
    )
    trainer.train()
    for line in read_log(tmp_path)[:3]:
        for name in ("video", "audio"):
            # beta 3000 multiplies the rounding of equal rows at different places of a matrix product
            assert abs(line[f"rewards/margins/{name}"]) < 1e-3
    assert losses(tmp_path)[2] != losses(tmp_path)[0]


def test_paired_dropout_shares_its_mask_and_keeps_the_mean():
    dropout = PairedDropout(0.5)
    winner, loser = dropout(torch.ones(4, 1000)).chunk(2)
    assert torch.equal(winner, loser)
    assert not torch.equal(winner[0], winner[1])
    assert winner.mean().item() == pytest.approx(1.0, abs=0.1)
    assert torch.equal(dropout.eval()(torch.ones(4, 10)), torch.ones(4, 10))


def test_margin_grows_when_two_pairs_are_overfitted(tmp_path):
    trainer = make_trainer(
        tmp_path, make_rows(2), max_steps=40, learning_rate=3e-3, beta_video=50.0, beta_audio=50.0, text_dropout=0.0
    )
    trainer.train()
    log = [line for line in read_log(tmp_path) if "loss" in line]
    for name in ("video", "audio"):
        late = sum(line[f"rewards/margins/{name}"] for line in log[-10:]) / 10
        assert late > 0.3
        assert sum(line[f"rewards/accuracies/{name}"] for line in log[-10:]) / 10 > 0.9
    assert sum(line["loss"] for line in log[-10:]) < sum(line["loss"] for line in log[:10])


@pytest.mark.parametrize("stop_at", [2, 3])
def test_resume_gives_the_same_losses(tmp_path, stop_at):
    """Stops within an epoch (3 steps each) and at its end; adapter dropout draws from the global generator."""
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": None, "max_steps": 7}
    dropout = lora(lora_dropout=0.2)
    make_trainer(tmp_path / "whole", make_rows(5), peft_config=dropout, **settings).train()
    make_trainer(tmp_path / "parts", make_rows(5), peft_config=dropout, **settings).train()
    resumed = make_trainer(tmp_path / "parts", make_rows(5), peft_config=dropout, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop_at}"))
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert len(whole) == 7
    assert parts == whole
    assert len(set(whole)) == 7


def test_log_on_disk_has_trl_names_per_modality(tmp_path):
    make_trainer(tmp_path, max_steps=3, logging_steps=3, logging_first_step=False).train()
    line = json.loads((tmp_path / LOG_NAME).read_text().splitlines()[0])
    for name in ("video", "audio"):
        for key in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"):
            assert f"{key}/{name}" in line
        for key in ("error/chosen", "error/rejected", "ref_error/chosen", "ref_error/rejected"):
            assert line[f"{key}/{name}"] > 0
        assert any(key.startswith(f"rewards/accuracies/{name}/sigma_") for key in line)
    assert line["step"] == 3


def test_log_metrics_average_all_pairs_since_the_last_line(tmp_path):
    settings = {"max_steps": 2, "learning_rate": 0.0, "text_dropout": 0.0}
    make_trainer(tmp_path / "fine", logging_steps=1, **settings).train()
    make_trainer(tmp_path / "coarse", logging_steps=2, logging_first_step=False, **settings).train()
    fine = [line for line in read_log(tmp_path / "fine") if "loss" in line]
    coarse = read_log(tmp_path / "coarse")[0]
    mean = (fine[0]["error/chosen/video"] + fine[1]["error/chosen/video"]) / 2
    assert coarse["error/chosen/video"] == pytest.approx(mean, rel=1e-5)


def test_gradient_accumulation_equals_one_larger_batch(tmp_path):
    def adapter(folder, **settings):
        trainer = make_trainer(folder, make_rows(4), max_steps=1, **settings)
        trainer.train()
        return {n: p.detach() for n, p in trainer.model.named_parameters() if p.requires_grad}, losses(folder)

    whole, whole_loss = adapter(tmp_path / "a", per_device_train_batch_size=4)
    parts, parts_loss = adapter(tmp_path / "b", per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-5)


def test_activation_checkpointing_changes_no_loss(tmp_path):
    make_trainer(tmp_path / "a").train()
    make_trainer(tmp_path / "b", gradient_checkpointing=True).train()
    assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=1e-5)


def test_continued_adapter_starts_from_its_own_policy(tmp_path):
    model = share_dropout(attach_adapter(tiny_model(), lora(), seed=0))
    trainer = make_trainer(tmp_path, model=model, peft_config=False)
    assert isinstance(trainer.model, PeftModel)


def test_diverged_loss_stops_the_run_and_names_the_pairs(tmp_path):
    model = tiny_model()
    trainer = make_trainer(tmp_path, model=model)
    next(model.parameters()).data.fill_(float("nan"))
    with pytest.raises(ValueError, match="step 1, with pair 'p"):
        trainer.train()


def test_warns_when_the_winners_error_rises_over_the_references(caplog):
    alarm = TrainingAlarms(window=20)

    def run(first_step, error):
        for step in range(first_step, first_step + 50, 10):
            logs = {f"{key}/{name}": 1.0 for key in ("error/chosen", "ref_error/chosen") for name in ("video", "audio")}
            alarm.on_log(
                None,
                type("State", (), {"global_step": step, "is_world_process_zero": True}),
                None,
                logs | {"error/chosen/audio": error},
            )

    run(10, 0.9)
    assert not caplog.records
    run(60, 1.2)
    assert [record.getMessage().split(" error")[0] for record in caplog.records] == ["The winner's audio"]


def test_a_modality_without_preference_is_not_warned_about(caplog):
    """beta_audio 0 leaves the sound its small flow term, whose share of the gradient is small on purpose."""
    state = type("State", (), {"global_step": 0, "is_world_process_zero": True})
    for preferred, warned in ((["video"], []), (["video", "audio"], ["from audio"])):
        caplog.clear()
        alarm = TrainingAlarms(20, preferred)
        for step in range(10, 60, 10):
            state.global_step = step
            alarm.on_log(None, state, None, {"grad_share/audio": 0.001, "grad_share/video": 0.999})
        assert [text for text in warned if text not in caplog.text] == []
        assert len(caplog.records) == len(warned)


def test_dataset_for_another_model_is_refused_before_training(tmp_path):
    rows = make_rows(video_shape=(5, 3, 4, 4))
    with pytest.raises(ValueError, match="5 video channels, the model expects 4"):
        make_trainer(tmp_path, rows)


def test_nan_latents_are_refused_before_training(tmp_path):
    rows = make_rows()
    rows[2]["rejected_audio_latents"][5] = float("nan")
    with pytest.raises(ValueError, match=r"'p2'.*rejected audio"):
        make_trainer(tmp_path, rows)


def test_mixed_geometries_train_in_one_run(tmp_path):
    rows = make_rows(3) + make_rows(3, video_shape=(4, 2, 4, 4), first_id=3)
    make_trainer(tmp_path, rows, max_steps=-1, num_train_epochs=1).train()
    assert len(losses(tmp_path)) == 4


def test_trainer_leaves_the_dataset_unchanged(tmp_path):
    dataset = make_dataset()
    before = dataset[0].chosen["video"].clone()
    batch = make_trainer(tmp_path).data_collator([dataset[0], dataset[1]])
    copies = {name: value.clone() for name, value in batch.items() if isinstance(value, torch.Tensor)}
    noisy_pairs(batch)
    assert all(torch.equal(batch[name], value) for name, value in copies.items())
    assert torch.equal(dataset[0].chosen["video"], before)


def test_preserved_winner_keeps_its_error_down_while_the_plain_loss_lets_it_rise(tmp_path):
    """The loser of each pair is an amplified winner, so unlearning the loser also unlearns the winner."""
    rows = make_rows(2)
    for row in rows:
        for name in ("video", "audio"):
            row[f"rejected_{name}_latents"] = [1.2 * value for value in row[f"chosen_{name}_latents"]]
    settings = {"max_steps": 60, "learning_rate": 3e-3, "text_dropout": 0.0, "fm_weight": 0.0, "logging_steps": 10}
    settings |= {"beta_video": 30.0, "beta_audio": 30.0, "per_device_train_batch_size": 2}
    rises = {}
    for name, mu in (("plain", None), ("safe", 0.5)):
        make_trainer(tmp_path / name, rows, winner_preserving_mu=mu, **settings).train()
        last = [line for line in read_log(tmp_path / name) if "loss" in line][-1]
        rises[name] = {m: last[f"error/chosen/{m}"] / last[f"ref_error/chosen/{m}"] for m in ("video", "audio")}
        if mu is not None:
            assert all(0 <= last[f"loser_scale/{m}"] < 1 for m in ("video", "audio"))
    assert all(rises["safe"][m] < rises["plain"][m] for m in ("video", "audio")), rises
    assert max(rises["plain"].values()) > 1.01, rises
    assert max(rises["safe"].values()) < 1.01, rises


@pytest.mark.parametrize("kind", [{}, {"peft_config": False}], ids=["lora", "full"])
def test_unseen_pairs_are_measured_at_the_same_draws_every_time(tmp_path, kind):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 3, "learning_rate": 0.0} | kind
    trainer = make_trainer(tmp_path, make_rows(4), eval_rows=make_rows(5, seed=9, first_id=50), **settings)
    trainer.train()
    lines = [line for line in read_log(tmp_path) if "eval_loss" in line]
    assert len(lines) == 3
    numbers = [{n: v for n, v in line.items() if n.startswith("eval_")} for line in lines]
    assert numbers[0] == numbers[1] == numbers[2]
    assert numbers[0]["eval_rewards/margins/video"] == 0.0
    assert numbers[0]["eval_error/chosen/audio"] == numbers[0]["eval_ref_error/chosen/audio"] > 0
    model = tiny_model()
    dataset = make_dataset(make_rows(5, seed=9, first_id=50))
    arguments, target = noisy_pairs(trainer.data_collator([dataset[row] for row in range(5)]))
    with torch.no_grad():
        error = (model(**arguments).audio - target["audio"])[:5].square().mean()
    assert numbers[0]["eval_error/chosen/audio"] == pytest.approx(error.item(), rel=1e-5)


def test_accuracy_on_unseen_pairs_of_the_same_kind_rises(tmp_path):
    """The loser is louder than the winner in all pairs, so training pairs generalise to other pairs."""

    def kind(rows):
        for row in rows:
            row["rejected_audio_latents"] = [2 * value for value in row["chosen_audio_latents"]]
            row["rejected_video_latents"] = [2 * value for value in row["chosen_video_latents"]]
        return rows

    settings = {"max_steps": 30, "learning_rate": 3e-3, "beta_video": 30.0, "beta_audio": 30.0, "text_dropout": 0.0}
    unseen = kind(make_rows(6, seed=5, first_id=50))
    trainer = make_trainer(
        tmp_path, kind(make_rows(6)), eval_rows=unseen, eval_strategy="steps", eval_steps=30, **settings
    )
    trainer.train()
    line = next(line for line in read_log(tmp_path) if "eval_loss" in line)
    assert line["eval_rewards/accuracies/video"] > 0.9
    assert line["eval_rewards/margins/video"] > 0.1
