"""Correlations within groups: of what is left of two columns when each group's means are subtracted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from evaluation.statistics.bootstrap import CONFIDENCE, exact_parts, resampled_sums

ROUNDING = 1e-12  # variance of equal values after rounding, in units of the column's variance


@dataclass(frozen=True)
class Correlation:
    """Correlation of two columns within groups; None where a column does not vary within any group.

    Attributes:
        num_samples, num_groups: samples that have both values, and their groups, of two such samples at least.
        pearson: of the values minus the means of their group.
        low, high: bootstrap 95 % interval of `pearson` over groups.
        spearman: the same as `pearson`, of the ranks within each group.
    """

    num_samples: int
    num_groups: int
    pearson: float | None
    low: float | None
    high: float | None
    spearman: float | None


def correlations_within_groups(
    values: np.ndarray, pairs: Sequence[tuple[int, int]], groups: np.ndarray, *, num_bootstrap: int, seed: int
) -> list[Correlation]:
    """Return the correlation within groups of each pair of columns.

    Args:
        values: (N, K) float; NaN where a sample has no value. A pair uses the samples that have both.
        pairs: P pairs of columns.
        groups: (N,) integers, the prompt of each sample. Whole groups are resampled.
        num_bootstrap: number of resamples.
        seed: seed of the resamples, which all pairs share.
    """
    _, codes = np.unique(groups, return_inverse=True)
    num_groups = int(codes.max()) + 1 if len(codes) else 0
    found = [_PairSums.of(values[:, pair], codes, num_groups) for pair in map(list, pairs)]
    if not found:
        return []
    sums = np.concatenate([one.products for one in found], axis=1)  # (G, 3P)
    high, low = np.split(
        resampled_sums(np.concatenate(exact_parts(sums), axis=1), num_bootstrap, np.random.default_rng(seed)), 2, axis=1
    )
    resamples = np.split(high + low, len(found), axis=1)  # P times (R, 3)
    return [one.correlation(resampled) for one, resampled in zip(found, resamples, strict=True)]


@dataclass(frozen=True, eq=False)
class _PairSums:
    """Sums of products of deviations of two columns, per group (G, 3): first squared, second squared, both."""

    num_samples: int
    num_groups: int
    products: np.ndarray
    rank_products: np.ndarray  # the same of the ranks within groups

    @staticmethod
    def of(values: np.ndarray, codes: np.ndarray, num_groups: int) -> _PairSums:
        """Compute the sums of values (N, 2)."""
        known = np.isfinite(values).all(axis=1)
        counts = np.bincount(codes[known], minlength=num_groups)
        known &= counts[codes] >= 2
        rows, own = values[known], codes[known]
        ranks = pd.DataFrame(rows).groupby(own).rank().to_numpy().reshape(rows.shape)
        return _PairSums(
            num_samples=len(rows),
            num_groups=int((counts >= 2).sum()),
            products=_products(rows, own, num_groups),
            rank_products=_products(ranks, own, num_groups),
        )

    def correlation(self, resampled: np.ndarray) -> Correlation:
        """Return the figures; `resampled` are the sums of products in R resamples, (R, 3)."""
        low = high = None
        pearson = _number(_ratios(self.products.sum(axis=0, keepdims=True))[0])
        if pearson is not None and self.num_groups >= 2:
            drawn = _ratios(resampled)
            tail = (1 - CONFIDENCE) / 2
            low, high = map(float, np.nanquantile(drawn, [tail, 1 - tail]))
        spearman = _number(_ratios(self.rank_products.sum(axis=0, keepdims=True))[0])
        return Correlation(self.num_samples, self.num_groups, pearson, low, high, spearman)


def _products(rows: np.ndarray, codes: np.ndarray, num_groups: int) -> np.ndarray:
    """Return the sums (G, 3) of products of deviations from the means of the groups; 0 for a column without any."""
    counts = np.maximum(np.bincount(codes, minlength=num_groups), 1)
    deviations = np.empty_like(rows)
    for column in range(2):
        means = np.bincount(codes, rows[:, column], minlength=num_groups) / counts
        deviations[:, column] = rows[:, column] - means[codes]
        spread = float(np.square(rows[:, column] - rows[:, column].mean()).sum()) if len(rows) else 0.0
        if np.square(deviations[:, column]).sum() <= ROUNDING * spread:
            deviations[:, column] = 0.0
    first, second = deviations.T
    parts = (first * first, second * second, first * second)
    return np.stack([np.bincount(codes, part, minlength=num_groups) for part in parts], axis=1)


def _ratios(products: np.ndarray) -> np.ndarray:
    """Return the correlations (R,) of sums of products (R, 3); NaN where a column does not vary."""
    sizes = np.sqrt(products[:, 0] * products[:, 1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(np.where(sizes > 0, products[:, 2] / sizes, np.nan), -1.0, 1.0)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
