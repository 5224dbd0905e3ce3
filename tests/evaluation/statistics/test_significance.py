"""The sign-flip test over prompts and Holm's correction, compared with values counted or computed by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evaluation.statistics.significance import holm, sign_flip_p_values


def counted_p_value(sums):
    """Return the share of all 2^G sign choices whose sum is at least as far from zero as the observed one."""
    signs = np.array(list(itertools.product((-1, 1), repeat=len(sums))))
    return float((np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12).mean())


def test_random_flips_come_to_the_share_of_all_flips():
    rng = np.random.default_rng(0)
    differences = rng.standard_t(2, size=(10, 3)) + [0.0, 0.5, 1.5]
    p_values = sign_flip_p_values(differences, np.arange(10), seed=1)
    assert p_values == pytest.approx([counted_p_value(column) for column in differences.T], abs=0.015)


def test_candidates_of_a_prompt_keep_their_signs_together():
    """Eight copies of each prompt's difference add no information to the four prompts: p stays at 2 / 2^4."""
    differences = np.repeat(np.array([[0.3], [0.1], [0.4], [0.2]]), 8, axis=0)
    p_values = sign_flip_p_values(differences, np.repeat(np.arange(4), 8), seed=0)
    assert p_values[0] == pytest.approx(2 / 16, abs=0.02)
    assert sign_flip_p_values(differences, np.arange(32), seed=0)[0] < 0.001


def test_equal_scores_prove_nothing_and_one_prompt_cannot():
    differences = np.array([[0.0, 1.0], [0.0, np.nan], [0.0, np.nan]])
    p_values = sign_flip_p_values(differences, np.arange(3), seed=0)
    assert p_values[0] == 1.0
    assert np.isnan(p_values[1])


def test_skewed_scores_without_a_difference_are_found_at_the_stated_rate():
    """Log-normal scores of two equal models: about one table in twenty is below 0.05."""
    rng = np.random.default_rng(3)
    scores = rng.lognormal(sigma=1.5, size=(2, 25, 1000))
    p_values = sign_flip_p_values(scores[1] - scores[0], np.arange(25), seed=0, num_flips=1000)
    assert (p_values < 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_p_values_are_the_same_however_the_work_is_cut(monkeypatch):
    """Scores on a scale of tenths: many flips tie with the observed sum, and rounding must not decide them."""
    differences = np.random.default_rng(0).integers(-5, 6, size=(12, 50)) / 10
    whole = sign_flip_p_values(differences, np.arange(12), seed=0, num_flips=2000)
    for rows in (1, 7, 333):
        monkeypatch.setattr("evaluation.statistics.significance._CHUNK_ELEMENTS", 12 * rows)
        np.testing.assert_array_equal(whole, sign_flip_p_values(differences, np.arange(12), seed=0, num_flips=2000))


def test_holm_by_hand():
    corrected = holm([0.04, None, 0.01, 0.03, 0.5])
    assert corrected == [pytest.approx(0.09), None, pytest.approx(0.04), pytest.approx(0.09), pytest.approx(0.5)]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([None]) == [None]
