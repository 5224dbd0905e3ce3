from __future__ import annotations

import pytest
import torch
from torch import nn

from synthetic.train_rewards.training import area_under_roc, train


class Line:
    """Task that learns y = 2 x; it can interrupt itself at a given step."""

    name, batch_size = "line", 4

    def __init__(self, killed_at=None):
        self.killed_at = killed_at

    def network(self):
        return nn.Linear(1, 1)

    def loss(self, network, seeds):
        if self.killed_at is not None and seeds.start >= self.killed_at * self.batch_size:
            raise KeyboardInterrupt
        x = torch.rand(len(seeds), 1, generator=torch.Generator().manual_seed(seeds.start))
        return (network(x) - 2 * x).square().mean(), 0.0


def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    monkeypatch.setattr("synthetic.train_rewards.training.SAVE_STEPS", 10)
    whole = train(Line(), 40, 0.02, tmp_path / "whole", seed=1)
    with pytest.raises(KeyboardInterrupt):
        train(Line(killed_at=25), 40, 0.02, tmp_path / "killed", seed=1)
    resumed = train(Line(), 40, 0.02, tmp_path / "killed", seed=1)
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


def test_training_lowers_the_loss(tmp_path):
    network = train(Line(), 300, 0.1, tmp_path, seed=1)
    assert network.weight.item() == pytest.approx(2.0, abs=0.2)


def test_the_area_counts_ties_half():
    assert area_under_roc(torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0])) == 0.875
    assert area_under_roc(torch.ones(3), torch.ones(2)) == 0.5
