from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.statistics.bootstrap import bootstrap_interval, exact_parts


def test_interval_covers_the_true_mean_about_95_percent_of_the_time():
    rng = np.random.default_rng(1)
    trials, covered = 400, 0
    for trial in range(trials):
        values = rng.normal(0.3, 1.0, size=(60, 1))
        low, high = bootstrap_interval(values, np.arange(60), num_bootstrap=500, seed=trial)
        covered += bool(low[0] <= 0.3 <= high[0])
    assert 0.91 <= covered / trials <= 0.98


def test_interval_width_matches_the_normal_theory():
    values = np.random.default_rng(0).normal(size=(2000, 1))
    low, high = bootstrap_interval(values, np.arange(2000), num_bootstrap=5000, seed=0)
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * values.std() / np.sqrt(2000), rel=0.05)


def test_candidates_of_one_prompt_are_drawn_together():
    values = np.repeat(np.random.default_rng(0).normal(size=(30, 1)), 3, axis=0)
    grouped = bootstrap_interval(values, np.repeat(np.arange(30), 3), num_bootstrap=4000, seed=0)
    single = bootstrap_interval(values[::3], np.arange(30), num_bootstrap=4000, seed=0)
    alone = bootstrap_interval(values, np.arange(90), num_bootstrap=4000, seed=0)
    np.testing.assert_allclose(grouped, single)  # copies of a sample add no information
    assert (alone[1] - alone[0])[0] < 0.75 * (grouped[1] - grouped[0])[0]


def test_undefined_values_take_no_part():
    values = np.random.default_rng(0).normal(size=(50, 1))
    holes = np.concatenate([values, np.full((10, 1), np.nan)])
    low, high = bootstrap_interval(holes, np.arange(60), num_bootstrap=2000, seed=0)
    plain_low, plain_high = bootstrap_interval(values, np.arange(50), num_bootstrap=2000, seed=0)
    assert low[0] == pytest.approx(plain_low[0], abs=0.1)
    assert high[0] == pytest.approx(plain_high[0], abs=0.1)


def test_one_prompt_gives_no_interval():
    low, high = bootstrap_interval(np.array([[1.0, 2.0], [3.0, np.nan]]), np.array([5, 5]), num_bootstrap=100, seed=0)
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_interval_is_the_same_to_the_last_bit_however_the_work_is_cut(monkeypatch):
    values = np.random.default_rng(0).standard_t(1, size=(40, 2))  # outliers: sums that would round differently
    whole = bootstrap_interval(values, np.arange(40), num_bootstrap=1000, seed=3)
    for rows in (1, 2, 7, 333):
        monkeypatch.setattr("evaluation.statistics.bootstrap._CHUNK_ELEMENTS", 40 * rows)
        np.testing.assert_array_equal(whole, bootstrap_interval(values, np.arange(40), num_bootstrap=1000, seed=3))


@pytest.mark.parametrize("num_groups", [2, 255, 256, 10_140])
def test_parts_have_the_same_sum_to_the_last_bit_in_every_order(num_groups):
    rng = np.random.default_rng(num_groups)
    values = rng.standard_t(1, size=(num_groups, 2)) * [1e-9, 1e9]
    values[: num_groups // 2, 1] *= 1e-12
    weights = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=5).astype(np.float64)
    parts = exact_parts(values)
    orders = [rng.permutation(num_groups) for _ in range(5)]
    for part in parts:
        exact = [[math.fsum(row * column) for column in part.T] for row in weights]
        for order in orders:
            np.testing.assert_array_equal(weights[:, order] @ part[order], exact)
    expected = [[math.fsum(row * column) for column in values.T] for row in weights]
    size = weights @ np.abs(values)  # of the terms, which may cancel
    assert (np.abs(sum(weights @ part for part in parts) - expected) <= 1e-15 * size).all()


def test_parts_of_nothing_and_of_zeros():
    assert [part.shape for part in exact_parts(np.zeros((0, 3)))] == [(0, 3), (0, 3)]
    assert all((part == 0).all() for part in exact_parts(np.zeros((4, 2))))
