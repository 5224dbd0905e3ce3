"""Correlations within groups, against a loop and against planted ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from evaluation.statistics.correlation import correlations_within_groups

NUM_GROUPS, SIZE = 60, 8
GROUPS = np.repeat(np.arange(NUM_GROUPS), SIZE)


def correlation(first, second, groups=GROUPS, num_bootstrap=500, seed=0):
    values = np.stack([first, second], axis=1)
    [found] = correlations_within_groups(values, [(0, 1)], groups, num_bootstrap=num_bootstrap, seed=seed)
    return found


def related(r, seed=0):
    """Return two columns with this correlation within groups, and the opposite one between groups."""
    rng = np.random.default_rng(seed)
    first, noise = rng.normal(size=(2, NUM_GROUPS * SIZE))
    second = r * first + np.sqrt(1 - r * r) * noise
    means = 5 * rng.normal(size=NUM_GROUPS)[GROUPS]
    return first + means, second - np.sign(r or 1) * means


def test_means_of_groups_do_not_count():
    found = correlation(*related(0.5))
    assert 0.35 < found.low < found.pearson < found.high < 0.65
    assert found.spearman == pytest.approx(found.pearson, abs=0.1)
    assert (found.num_samples, found.num_groups) == (NUM_GROUPS * SIZE, NUM_GROUPS)
    assert np.corrcoef(*related(0.5))[0, 1] < -0.8


def test_a_loop_finds_the_same_with_gaps_and_groups_of_one():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 40))
    groups = rng.integers(12, size=40)
    groups[0] = 99
    first[[3, 7]], second[5] = np.nan, np.nan
    parts = [[], [], [], []]
    for group in np.unique(groups):
        inside = (groups == group) & np.isfinite(first) & np.isfinite(second)
        if inside.sum() < 2:
            continue
        for place, column in enumerate((first, second)):
            parts[place] += list(column[inside] - column[inside].mean())
            ranks = rankdata(column[inside])
            parts[place + 2] += list(ranks - ranks.mean())
    a, b, c, d = map(np.array, parts)
    found = correlation(first, second, groups)
    assert found.pearson == pytest.approx((a @ b) / np.sqrt((a @ a) * (b @ b)))
    assert found.spearman == pytest.approx((c @ d) / np.sqrt((c @ c) * (d @ d)))
    assert found.num_samples == len(a)


def test_intervals_cover_a_zero_and_are_reproducible():
    inside = [correlation(*related(0.0, seed), seed=seed) for seed in range(60)]
    covered = np.mean([one.low <= 0 <= one.high for one in inside])
    assert covered >= 0.85
    assert correlation(*related(0.0)) == correlation(*related(0.0))


def test_columns_that_do_not_vary_within_groups_have_none():
    rng = np.random.default_rng(0)
    constant = rng.normal(size=NUM_GROUPS)[GROUPS] * 1e3
    found = correlation(constant, rng.normal(size=len(GROUPS)))
    assert (found.pearson, found.low, found.high, found.spearman) == (None, None, None, None)
    assert found.num_samples == len(GROUPS)


def test_one_group_has_no_interval():
    found = correlation(*np.random.default_rng(0).normal(size=(2, 8)), groups=np.zeros(8, int))
    assert found.pearson is not None
    assert found.low is None
