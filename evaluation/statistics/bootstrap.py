"""Paired bootstrap over prompts, vectorised over resamples and columns."""

from __future__ import annotations

import numpy as np

CONFIDENCE = 0.95
_CHUNK_ELEMENTS = 1 << 22  # resampling weights held at once: 32 MiB of float64


def bootstrap_interval(
    values: np.ndarray, groups: np.ndarray, *, num_bootstrap: int, seed: int, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean of each column when whole groups are drawn with replacement.

    Args:
        values: (N, K) float; NaN where a sample has no value for that column.
        groups: (N,) integers; samples with one number (candidates of one prompt) are drawn together.
        num_bootstrap: number of resamples.
        seed: of the resampling; all columns share the same resamples.
        confidence: mass inside the interval.

    Returns:
        low and high, each (K,); NaN for a column with values in fewer than two groups.
    """
    assert values.ndim == 2, f"{values.shape=}"
    assert groups.shape == values.shape[:1], f"{groups.shape=} {values.shape=}"
    sums, counts = sum_by_group(values, groups)  # (G, K) each
    means = _resampled_means(sums, counts, num_bootstrap, np.random.default_rng(seed))  # (R, K)
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    usable = (counts > 0).sum(axis=0) >= 2
    if usable.any():
        tail = (1.0 - confidence) / 2
        low[usable], high[usable] = np.nanquantile(means[:, usable], [tail, 1.0 - tail], axis=0)
    return low, high


def sum_by_group(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and numbers of the defined values in each group, both (G, K)."""
    _, codes = np.unique(groups, return_inverse=True)
    num_groups = int(codes.max()) + 1 if len(codes) else 0
    defined = np.isfinite(values)
    sums = np.zeros((num_groups, values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, codes, np.where(defined, values, 0.0))
    np.add.at(counts, codes, defined)
    return sums, counts


def _resampled_means(
    sums: np.ndarray, counts: np.ndarray, num_bootstrap: int, generator: np.random.Generator
) -> np.ndarray:
    """Mean of every column in every resample of the groups, (R, K); NaN where a resample drew no value."""
    num_groups, num_columns = sums.shape
    if num_groups == 0:
        return np.full((num_bootstrap, num_columns), np.nan)
    totals = np.concatenate([sums, counts], axis=1)  # (G, 2K)
    chunk = max(1, _CHUNK_ELEMENTS // num_groups)
    means = np.empty((num_bootstrap, num_columns))
    for start in range(0, num_bootstrap, chunk):
        size = min(chunk, num_bootstrap - start)
        drawn = generator.integers(num_groups, size=(size, num_groups))
        drawn += np.arange(size)[:, None] * num_groups
        weights = np.bincount(drawn.ravel(), minlength=size * num_groups).reshape(size, num_groups)
        resampled = weights.astype(np.float64) @ totals  # (size, 2K)
        with np.errstate(invalid="ignore"):
            means[start : start + size] = resampled[:, :num_columns] / resampled[:, num_columns:]
    return means
