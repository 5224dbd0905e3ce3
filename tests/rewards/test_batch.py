"""Judges on a batch: scores and features of each clip, and failures that cost one clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewards import Judge, Prompt, get_judge, get_reward
from rewards.batch import measure_batch
from tests.rewards.score_fakes import MODULE, make_clip

SHADES = (40, 80, 120)
PROMPTS = [Prompt("p", "grey")] * len(SHADES)


class Colours(Judge):
    """A score, and a feature of width 3, of each clip; by `faults` other values for clips of a shade."""

    name, version, needs = "colours", "1", frozenset({"video"})
    outputs = {"mean": None, "colour": 3}  # noqa: RUF012

    def __init__(self, faults=None):
        self.faults = faults or {}
        self.batch_sizes = []

    def measure(self, clips, prompts):
        self.batch_sizes.append(len(clips))
        shades = [int(clip.video[0, 0, 0, 0]) for clip in clips]
        faults = [self.faults.get(shade, 0.0) for shade in shades]
        for fault in faults:
            if isinstance(fault, Exception):
                raise fault
        colours = torch.stack([torch.full((3,), shade + fault) for shade, fault in zip(shades, faults, strict=True)])
        return {"mean": torch.tensor([float(shade) for shade in shades]), "colour": colours.to(torch.bfloat16)}


def outcomes(judge):
    return measure_batch(judge, [make_clip(shade) for shade in SHADES], PROMPTS)


def test_scores_and_features_of_each_clip_are_float32():
    for shade, values in zip(SHADES, outcomes(Colours()), strict=True):
        assert values["mean"] == shade
        assert values["colour"].dtype == np.float32
        assert values["colour"].tolist() == [shade] * 3


@pytest.mark.parametrize(
    ("fault", "message", "batch_sizes"),
    [(RuntimeError("boom"), "RuntimeError: boom", [3, 1, 1, 1]), (float("inf"), "infinite colour", [3])],
)
def test_a_failure_costs_its_own_clip(fault, message, batch_sizes):
    judge = Colours({80: fault})
    first, failed, last = outcomes(judge)
    assert failed == message
    assert (first["mean"], last["mean"]) == (40, 120)
    assert judge.batch_sizes == batch_sizes


def test_a_feature_of_another_width_than_declared_is_refused():
    judge = Colours()
    judge.outputs = {"mean": None, "colour": 4}
    assert all("its colour has shape (1, 3) for 1 clips; return (B, 4)" in one for one in outcomes(judge))


def test_a_reward_is_a_judge_of_its_columns():
    reward = get_judge(f"{MODULE}:Peak")
    assert reward is get_reward(f"{MODULE}:Peak")
    assert reward.outputs == {"peak": None, "length": None}
    assert [sorted(values) for values in outcomes(reward.load())] == [["length", "peak"]] * 3
