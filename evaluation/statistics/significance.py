"""Paired sign-flip test over prompts, and Holm's correction for several tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.statistics.bootstrap import exact_parts, sum_by_group

NUM_FLIPS = 10_000
_CHUNK_ELEMENTS = 1 << 22  # signs held at once: 32 MiB of float64
_ROUNDING = 1e-12  # equal statistics may differ by this fraction of the sum of magnitudes


def sign_flip_p_values(
    differences: np.ndarray, groups: np.ndarray, *, seed: int, num_flips: int = NUM_FLIPS
) -> np.ndarray:
    """Test whether the mean of each column is zero by flipping the signs of whole groups at random, two-sided.

    The test is exact for any distribution of scores: for two equal models, exchanging the models on a prompt is
    equally likely, and it flips the sign of all differences of that prompt. Each group has the weight of its number of
    samples, as in the tested mean.

    Args:
        differences: (N, K) float; NaN where a sample has no value for that column.
        groups: (N,) integers; samples with the same number (candidates of one prompt) are flipped together.
        seed: seed of the flips, which all columns share.
        num_flips: number of random flips; no p-value is below 1 / (num_flips + 1).

    Returns:
        p-values (K,); NaN for a column with values in fewer than two groups.
    """
    assert differences.ndim == 2, f"{differences.shape=}"
    sums, counts = sum_by_group(differences, groups)  # (G, K) each
    num_groups, parts = len(sums), np.concatenate(exact_parts(sums), axis=1)  # (G, 2K)
    observed = np.abs(_signed_sums(np.ones((1, num_groups)), parts)[0])  # (K,)
    least = observed - _ROUNDING * np.abs(sums).sum(axis=0)  # (K,) smallest sum that counts as at least as large
    generator, reached = np.random.default_rng(seed), np.zeros(sums.shape[1], dtype=np.int64)
    chunk = max(1, _CHUNK_ELEMENTS // max(1, num_groups))
    for start in range(0, num_flips, chunk):
        size = min(chunk, num_flips - start)
        signs = 2.0 * generator.integers(2, size=(size, num_groups), dtype=np.int8) - 1.0
        reached += (np.abs(_signed_sums(signs, parts)) >= least).sum(axis=0)
    p_values = (reached + 1) / (num_flips + 1)
    return np.where((counts > 0).sum(axis=0) >= 2, p_values, np.nan)


def _signed_sums(signs: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return the signed sums (R, K) of signs (R, G) and exact parts (G, 2K), bitwise equal for any cut of the rows."""
    high, low = np.split(signs @ parts, 2, axis=1)
    return high + low


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values corrected by Holm's step-down procedure, which controls the family-wise error rate.

    None marks a test that could not be made; it stays None and does not count.
    """
    tested = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, place) in enumerate(tested):
        largest = max(largest, min(1.0, value * (len(tested) - rank)))
        corrected[place] = largest
    return corrected
