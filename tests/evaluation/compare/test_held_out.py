from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.lineage import UNTRAINED, Lineage, PreferenceTraining, RewardUse
from evaluation.compare.held_out import held_out_difference
from evaluation.compare.tables import read_pairs
from rewards import METRIC_COLUMNS

TRAINED = ("visual_quality", "audio_quality")


def judged(baseline, candidate, trained=TRAINED):
    """The verdict on a candidate that was trained on some of the metrics."""
    lineage = Lineage((PreferenceTraining("rewards", (RewardUse(None, None, tuple(trained)),)),))
    pairs = read_pairs(baseline, candidate)
    pairs = replace(pairs, lineages={pairs.names[0]: UNTRAINED, pairs.names[1]: lineage})
    return held_out_difference(pairs, num_bootstrap=500, seed=0)


def test_metrics_of_the_training_have_no_vote(make_model):
    gain = judged(make_model("a"), make_model("b", shift={"visual_quality": 5.0}))
    assert set(gain.judges) == set(METRIC_COLUMNS) - set(TRAINED)
    assert gain.are_held_out
    assert gain.difference == gain.low == gain.high == 0.0


def test_a_lower_desync_counts_as_better(make_model):
    assert judged(make_model("a"), make_model("b", shift={"desync": -0.5})).difference > 0


def test_a_noisy_loss_has_an_interval_below_zero_and_the_units_do_not_matter(make_model):
    rng = np.random.default_rng(1)
    scores = np.random.default_rng(0).normal(size=(40, len(METRIC_COLUMNS)))
    worse = scores + rng.normal(-0.5, 0.3, scores.shape) * np.where(np.array(METRIC_COLUMNS) == "desync", -1, 1)
    found = judged(make_model("a"), make_model("b", worse))
    assert found.low < found.difference < found.high < 0
    column = METRIC_COLUMNS.index("ib_tv")
    for values in (scores, worse):
        values[:, column] *= 1000.0
    rescaled = judged(make_model("c", scores), make_model("d", worse))
    assert rescaled.difference == pytest.approx(found.difference)


def test_without_a_held_out_metric_all_decide_and_it_is_said(make_model):
    found = judged(make_model("a"), make_model("b", shift={"ib_tv": 1.0}), trained=METRIC_COLUMNS)
    assert not found.are_held_out
    assert set(found.judges) == set(METRIC_COLUMNS)
    assert found.difference > 0
