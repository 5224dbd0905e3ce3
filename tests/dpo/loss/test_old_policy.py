from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from dpo.loss.old_policy import adapter_tensors, ema_decay, move_towards, old_decay
from tests.golden_files import golden_path

GOLDEN = json.loads(golden_path("nft/old_policy.json").read_text())
SCHEDULES = {"0": "copy", "1": "ramp", "2": "late_ramp"}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_golden_decay_schedules(kind):
    assert {step: old_decay(SCHEDULES[kind], int(step)) for step in GOLDEN["decay"][kind]} == GOLDEN["decay"][kind]


def test_golden_decay_of_the_average():
    assert {step: ema_decay(int(step)) for step in GOLDEN["ema_decay"]} == GOLDEN["ema_decay"]


def test_golden_trajectory():
    golden = GOLDEN["trajectory"]
    old, average = ({"w": torch.tensor(golden["w0"])} for _ in range(2))
    first = golden["first_global_step"]
    for step, current in enumerate(golden["current"], first):
        current = {"w": torch.tensor(current)}
        move_towards(old, current, old_decay(SCHEDULES[str(golden["decay_type"])], step))
        move_towards(average, current, ema_decay(step))
        for policy, expected in ((old, golden["old"]), (average, golden["ema"])):
            torch.testing.assert_close(policy["w"], torch.tensor(expected[step - first]), rtol=0, atol=1e-6)


def test_a_constant_decay_is_the_same_at_every_step():
    assert [old_decay(0.9, step) for step in (0, 10, 1000)] == [0.9] * 3


def test_the_old_adapter_moves_and_the_trained_one_stays():
    model = get_peft_model(nn.Sequential(nn.Linear(3, 4)), LoraConfig(r=2, target_modules=["0"]))
    model.add_adapter("old", LoraConfig(r=2, target_modules=["0"]))
    trained, old = adapter_tensors(model, "default"), adapter_tensors(model, "old")
    assert len(trained) == 2
    for value in trained.values():
        nn.init.normal_(value)
    before = {name: (value.clone(), old[name].clone()) for name, value in trained.items()}
    move_towards(old, trained, 0.25)
    for name, (current, past) in before.items():
        torch.testing.assert_close(old[name].detach(), 0.25 * past + 0.75 * current)
        assert torch.equal(trained[name], current)
    move_towards(old, trained, 0.0)
    assert all(torch.equal(old[name], trained[name]) for name in trained)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="copy, ramp, late_ramp"):
        old_decay("type 1", 0)
    with pytest.raises(ValueError, match="share in"):
        old_decay(1.5, 0)
    with pytest.raises(ValueError, match="the same layers"):
        move_towards({"a": torch.ones(1)}, {"b": torch.ones(1)}, 0.5)
