"""The choice of a round by held-out judges, on score tables of made-up models."""

from __future__ import annotations

import shutil

import pytest

from pipeline.rounds.choice import choose_round
from pipeline.rounds.config import RoundsConfig
from tests.evaluation.conftest import make_model  # noqa: F401


@pytest.fixture
def config(make_model, tmp_path):  # noqa: F811
    """A run whose rounds change `ib_tv` by +1, -2 and +2."""
    folder = tmp_path / "run"
    for name, shift in (("initial", 0.0), ("round-1", 1.0), ("round-2", -1.0), ("round-3", 1.5)):
        shutil.move(make_model(name, shift={"ib_tv": shift}), folder / name / "evaluation")
    return RoundsConfig(prompts=tmp_path / "p", output_dir=folder, held_out=tmp_path / "h", stop_on_decline=True)


@pytest.mark.parametrize(("last", "best", "declines"), [(1, 1, False), (2, 1, True), (3, 3, False)])
def test_each_round_is_compared_with_the_best_before_it(config, last, best, declines):
    choice = choose_round(config, last)
    assert (choice.best, choice.declines) == (best, declines)
    assert choice.low <= choice.difference <= choice.high
    assert f"best: round {best}" in choice.sentence()


def test_the_starting_model_stays_the_best_if_every_round_is_worse(config):
    shutil.rmtree(config.folder(1) / "evaluation")
    shutil.copytree(config.folder(2) / "evaluation", config.folder(1) / "evaluation")
    choice = choose_round(config, 2)
    assert choice.best == 0
    assert "best: the starting model" in choice.sentence()
