from __future__ import annotations

import pytest

from rewards import get_reward
from synthetic.train_rewards.command import TASKS, TrainRewardsConfig, train_rewards


@pytest.mark.parametrize("name", TASKS)
def test_a_step_of_training_makes_a_reward_that_loads_and_is_measured(name, tmp_path, capsys):
    train_rewards(
        TrainRewardsConfig(
            output=tmp_path / "out", work_dir=tmp_path / "work", rewards=[name], num_steps={name: 1}, num_trials=2
        )
    )
    assert get_reward(name).load(str(tmp_path / "out" / name)).name == name
    assert f"| {name} |" in capsys.readouterr().out


def test_what_is_finished_is_not_trained_again(tmp_path, monkeypatch):
    config = TrainRewardsConfig(
        output=tmp_path / "out",
        work_dir=tmp_path / "work",
        rewards=["audiobox"],
        num_steps={"audiobox": 1},
        num_trials=0,
    )
    train_rewards(config)
    monkeypatch.setattr("synthetic.train_rewards.training.train", lambda *_: pytest.fail("trained again"))
    train_rewards(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": ["clap"]}, "'clap' is not a reward that this command trains"),
        ({"num_steps": {"clap": 1}}, "'clap' is not a reward that this command trains"),
        ({"rewards": ["audiobox"], "num_steps": {"imagebind": 5}}, "no number of steps for 'audiobox'"),
    ],
)
def test_settings_that_train_nothing_are_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        TrainRewardsConfig(output=tmp_path, **changes)
