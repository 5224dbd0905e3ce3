"""Paired bootstrap over prompts, vectorised over resamples and columns."""

from __future__ import annotations

import numpy as np

CONFIDENCE = 0.95
_CHUNK_ELEMENTS = 1 << 22  # resampling weights held at once: 32 MiB of float64


def bootstrap_interval(
    values: np.ndarray, groups: np.ndarray, *, num_bootstrap: int, seed: int, confidence: float = CONFIDENCE
) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval of each column's mean when whole groups are drawn with replacement.

    Args:
        values: (N, K) float; NaN where a sample has no value for that column.
        groups: (N,) integers; samples with the same number (candidates of one prompt) are drawn together.
        num_bootstrap: number of resamples.
        seed: seed of the resamples, which all columns share.
        confidence: probability mass inside the interval.

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
    """Return the sums and the counts of the finite values in each group, both (G, K)."""
    _, codes = np.unique(groups, return_inverse=True)
    num_groups = int(codes.max()) + 1 if len(codes) else 0
    defined = np.isfinite(values)
    sums = np.zeros((num_groups, values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, codes, np.where(defined, values, 0.0))
    np.add.at(counts, codes, defined)
    return sums, counts


def exact_parts(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split columns into a high and a low part whose products with small integers add up without rounding.

    Both parts are multiples of a power of two with so few bits that every partial sum stays below 2^53. Matrix products
    with integer weights are therefore equal to the last bit on every processor, BLAS kernel and number of threads, and
    however the rows of the weights are cut.

    Args:
        values: (G, K) float64, finite.

    Returns:
        high and low, each (G, K). `weights @ high + weights @ low` is `weights @ values` for integer weights (R, G)
        whose magnitudes sum to at most G per row.
    """
    bits = 53 - len(values).bit_length()
    high = _round_columns(values, bits)
    return high, _round_columns(values - high, bits)


def _round_columns(values: np.ndarray, bits: int) -> np.ndarray:
    """Round each column to multiples of a power of two, of which its largest value holds at most 2^bits."""
    exponent = np.frexp(np.abs(values).max(axis=0, initial=0.0))[1]
    return np.ldexp(np.rint(np.ldexp(values, bits - exponent)), exponent - bits)


def resampled_sums(sums: np.ndarray, num_bootstrap: int, generator: np.random.Generator) -> np.ndarray:
    """Return the sum of every column in every resample of the groups, (G, K) -> (R, K): G groups drawn each time.

    Sums of integers, and of the parts of `exact_parts`, are exact.
    """
    num_groups, num_columns = sums.shape
    chunk = max(1, _CHUNK_ELEMENTS // max(1, num_groups))
    found = np.zeros((num_bootstrap, num_columns))
    for start in range(0, num_bootstrap if num_groups else 0, chunk):
        size = min(chunk, num_bootstrap - start)
        drawn = generator.integers(num_groups, size=(size, num_groups))
        drawn += np.arange(size)[:, None] * num_groups
        weights = np.bincount(drawn.ravel(), minlength=size * num_groups).reshape(size, num_groups)
        found[start : start + size] = weights.astype(np.float64) @ sums
    return found


def _resampled_means(
    sums: np.ndarray, counts: np.ndarray, num_bootstrap: int, generator: np.random.Generator
) -> np.ndarray:
    """Return the mean of every column in every resample of the groups, (R, K); NaN where a resample has no value."""
    totals = resampled_sums(np.concatenate([*exact_parts(sums), counts], axis=1), num_bootstrap, generator)
    high, low, drawn_counts = np.split(totals, 3, axis=1)  # (R, K) each
    with np.errstate(invalid="ignore"):
        return (high + low) / drawn_counts
