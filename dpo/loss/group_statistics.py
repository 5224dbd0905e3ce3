"""Means and deviations of score tables (N, K) by group, without their NaN, which stand for scores that failed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MAD_TO_STD = 1.4826  # of a normal distribution


def scores_by_group(rewards: ArrayLike, groups: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """Return the rewards as float64, and the number of each row's group."""
    scores, labels = np.asarray(rewards, dtype=np.float64), np.asarray(groups)
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"Rewards have shape {scores.shape} and groups {labels.shape}: give rewards (candidates, rewards) and one "
            "label per candidate."
        )
    if np.isinf(scores).any():
        raise ValueError("A reward is infinite, which leaves no scale for the others: write NaN where a score failed.")
    return scores, np.unique(labels, return_inverse=True)[1]


def group_sums(values: Floats, index: NDArray[np.int64]) -> Floats:
    """Return the sums (G, K) of the groups' values."""
    sums = np.zeros((index.max(initial=-1) + 1, values.shape[1]))
    np.add.at(sums, index, values)
    return sums


def group_means(values: Floats, index: NDArray[np.int64]) -> Floats:
    """Return the means (G, K) of the groups' values that are not NaN; NaN where there are none."""
    known = ~np.isnan(values)
    counts = group_sums(known.astype(np.float64), index)
    means = np.full_like(counts, np.nan)
    return np.divide(group_sums(np.nan_to_num(values), index), counts, out=means, where=counts > 0)


def centred(scores: Floats, index: NDArray[np.int64]) -> Floats:
    """Return scores minus their group's mean, exactly 0 in groups of equal scores."""
    lowest, highest = np.full((2, index.max(initial=-1) + 1, scores.shape[1]), np.nan)
    np.fmin.at(lowest, index, scores)
    np.fmax.at(highest, index, scores)
    deviations = scores - group_means(scores, index)[index]
    return np.where((lowest == highest)[index] & ~np.isnan(scores), 0.0, deviations)


def column_std(scores: Floats) -> Floats:
    """Return the standard deviation (K,) of each column's values that are not NaN, 0 where there are none."""
    one_group = np.zeros(len(scores), dtype=np.int64)
    deviation = scores - group_means(scores, one_group)
    return np.sqrt(np.nan_to_num(group_means(deviation**2, one_group)))[0]


def median_deviation(deviations: Floats) -> Floats:
    """Return the median absolute deviation (K,) of centred columns, in units of a standard deviation.

    Raises:
        ValueError: for a column of which more than half is 0, but not all.
    """
    sizes = [np.abs(column[~np.isnan(column)]) for column in deviations.T]
    medians = np.array([np.median(column) if column.size else 0.0 for column in sizes])
    for number, (median, column) in enumerate(zip(medians, sizes, strict=True)):
        if median == 0 and column.any():
            raise ValueError(
                f"More than half of the candidates equal the mean of their group in reward {number}, so its median "
                "absolute deviation is 0: use scale 'table' or 'group'."
            )
    return MAD_TO_STD * medians
