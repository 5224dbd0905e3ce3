"""Statistics of a ranking as JSON values: yield, attrition, win rates, agreement of metrics, distributions.

Candidates are compared within their prompt. All candidates with all scores count, ground truth included, whatever the
ground-truth policy is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from core.schema import PAIRS
from pipeline.rank.choice import Choice
from pipeline.rank.input import RANKED_METRICS, SIGNS, Candidates
from pipeline.rank.rules import MODALITIES
from pipeline.rank.scores import Scale

NAMES = (*RANKED_METRICS, *MODALITIES)  # rows and columns of the matrices below
NUM_BINS = 40
ROUNDING = 1e-12  # variance of equal values after rounding, in units of the table's variance


def build_report(
    candidates: Candidates,
    scale: Scale,
    standardised: np.ndarray,
    choice: Choice,
    pairs: pd.DataFrame,
    attrition: pd.DataFrame,
) -> dict[str, Any]:
    """Compute the statistics of ranking.json. standardised: (modalities, N) micro scores."""
    num_prompts = len(candidates.counts)
    num_giving = num_prompts - len(attrition)
    agreement = _Agreement.of(candidates, scale, standardised)
    return {
        "num_prompts": num_prompts,
        "num_pairs": len(pairs),
        "num_prompts_with_pair": num_giving,
        "yield": num_giving / num_prompts if num_prompts else 0.0,
        "attrition": {str(reason): int(count) for reason, count in attrition["reason"].value_counts().items()},
        "tied_margins": choice.num_tied,
        "candidate_pairs": choice.stages,
        "candidates": _candidate_counts(candidates),
        "ground_truth_wins": agreement.ground_truth_wins()
        | {side: int(pairs[f"{side}_is_ground_truth"].sum()) for side in ("chosen", "rejected")},
        "chosen_is_better": _chosen_is_better(pairs),
        "conflict": _matrix(agreement.conflict()),
        "correlation": _matrix(_correlation(agreement.covariance(), agreement.count)),
        "correlation_within_prompts": _matrix(_correlation(agreement.deviation_products, agreement.count)),
        "distributions": _distributions(candidates, pairs),
    }


class _Agreement:
    """Sums over all prompts that measure the agreement of the R NAMES, within a prompt and over the table."""

    def __init__(self) -> None:
        size = len(NAMES)
        self.count, self.sums = 0, np.zeros(size)
        self.products = np.zeros((size, size))  # of values, summed over all candidates
        self.deviation_products = np.zeros((size, size))  # of values minus their prompt's mean
        self.same_order = np.zeros((size, size))  # pairs of candidates: ordered alike minus ordered differently
        self.both_order = np.zeros((size, size))  # pairs of candidates that are equal under neither name
        self.truth_wins = np.zeros(size)  # a tie counts half
        self.truth_wins_all, self.truth_comparisons = 0, 0

    @staticmethod
    def of(candidates: Candidates, scale: Scale, standardised: np.ndarray) -> _Agreement:
        result = _Agreement()
        for block in candidates.blocks():
            rows = block.rows
            metrics = [scale.standardise(candidates.signed[k][rows], k) for k in range(len(RANKED_METRICS))]
            values = np.stack([*metrics, *standardised[:, rows]])  # (R, K, B)
            scored = candidates.scored[rows]
            values = np.where(scored, values, 0.0)
            result._add_values(values, scored)
            result._add_comparisons(values, scored, candidates.is_ground_truth[rows])
        return result

    def _add_values(self, values: np.ndarray, scored: np.ndarray) -> None:
        flat = values.reshape(len(values), -1)
        self.count += int(scored.sum())
        self.sums += flat.sum(axis=1)
        self.products += flat @ flat.T
        means = values.sum(axis=1) / np.maximum(scored.sum(axis=0), 1)  # (R, B)
        flat = np.where(scored, values - means[:, None], 0.0).reshape(len(values), -1)
        self.deviation_products += flat @ flat.T

    def _add_comparisons(self, values: np.ndarray, scored: np.ndarray, is_truth: np.ndarray) -> None:
        first, second = np.triu_indices(len(scored), 1)
        both = scored[first] & scored[second]  # (Q, B) for the Q = K (K - 1) / 2 pairs of places
        signs = np.sign(values[:, first] - values[:, second], dtype=values.dtype) * both  # (R, Q, B)
        flat = signs.reshape(len(signs), -1).astype(np.float32)  # exact: a block has far fewer than 2^24 pairs
        self.same_order += flat @ flat.T
        np.abs(flat, out=flat)
        self.both_order += flat @ flat.T
        side = is_truth[first].astype(np.int8) - is_truth[second]  # 1: the first is ground truth, -1: the second
        asked = (side != 0) & both
        if asked.any():
            wins = (signs * side)[:, asked]  # (R, comparisons)
            self.truth_comparisons += wins.shape[1]
            self.truth_wins += ((wins > 0) + 0.5 * (wins == 0)).sum(axis=1)
            self.truth_wins_all += int((wins[-len(MODALITIES) :] > 0).all(axis=0).sum())

    def conflict(self) -> np.ndarray:
        """Return (R, R): of the pairs of candidates that two names order, the share that they order differently."""
        with np.errstate(invalid="ignore"):
            return (self.both_order - self.same_order) / 2 / self.both_order

    def covariance(self) -> np.ndarray:
        """Return (R, R): the covariance over the table, times the number of candidates."""
        return self.products - np.outer(self.sums, self.sums) / max(self.count, 1)

    def ground_truth_wins(self) -> dict[str, Any]:
        """Return win rates of ground truth over generated candidates of its prompt.

        A tie counts half; for "all" modalities it counts as no win.
        """
        count = self.truth_comparisons
        if not count:
            return {"comparisons": 0, "win_rate": {}, "metric_win_rate": {}}
        rates = dict(zip(NAMES, (self.truth_wins / count).tolist(), strict=True))
        return {
            "comparisons": count,
            "win_rate": {name: rates[name] for name in MODALITIES} | {"all": self.truth_wins_all / count},
            "metric_win_rate": {name: rates[name] for name in RANKED_METRICS},
        }


def _correlation(products: np.ndarray, count: int) -> np.ndarray:
    """Return Pearson correlations from sums of products of deviations over `count` candidates.

    The result is NaN for a name that never varies.
    """
    variance = np.diag(products)
    size = np.sqrt(np.where(variance > ROUNDING * count, variance, np.nan))
    return np.clip(products / np.outer(size, size), -1.0, 1.0)


def _matrix(values: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Convert a matrix to name -> name -> value, with null for undefined values."""
    rows = [[round(float(value), 6) if np.isfinite(value) else None for value in row] for row in values]
    return {name: dict(zip(NAMES, row, strict=True)) for name, row in zip(NAMES, rows, strict=True)}


def _candidate_counts(candidates: Candidates) -> dict[str, Any]:
    missing = np.isnan(candidates.signed).sum(axis=1)
    return {
        "total": len(candidates.scored),
        "ground_truth": int(candidates.is_ground_truth.sum()),
        "left_out_for_missing_scores": int((~candidates.scored).sum()),
        "missing_scores": dict(zip(RANKED_METRICS, missing.tolist(), strict=True)),
    }


def _chosen_is_better(pairs: pd.DataFrame) -> dict[str, float | None]:
    """Return, per metric, the share of pairs whose winner is better by that metric; a tie counts half."""
    shares: dict[str, float | None] = {}
    for sign, metric in zip(SIGNS, RANKED_METRICS, strict=True):
        if f"chosen_{metric}" in pairs:
            chosen, rejected = (pairs[f"{side}_{metric}"].to_numpy(float) for side in ("chosen", "rejected"))
            margin = sign * (chosen - rejected)
            margin = margin[~np.isnan(margin)]
            shares[metric] = float(((margin > 0) + 0.5 * (margin == 0)).mean()) if len(margin) else None
    return shares


def _distributions(candidates: Candidates, pairs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return histograms of the metrics by origin of the candidate, and of the margins of the pairs."""
    truth = candidates.is_ground_truth
    result: dict[str, dict[str, Any]] = {}
    for k, metric in enumerate(RANKED_METRICS):
        values = candidates.signed[k] * SIGNS[k]
        result[metric] = _histograms({"generated": values[~truth], "ground_truth": values[truth]})
    for name in (name for name in PAIRS.names if name.startswith("margin")):
        result[name] = _histograms({"pairs": pairs[name].to_numpy(float)})
    return result


def _histograms(groups: dict[str, np.ndarray]) -> dict[str, Any]:
    """Count each group in equal bins from `low` to `high`, the range of all groups; NaN is not counted."""
    known = {name: values[~np.isnan(values)] for name, values in groups.items()}
    filled = [values for values in known.values() if len(values)]
    low = float(min((values.min() for values in filled), default=0.0))
    high = float(max((values.max() for values in filled), default=0.0))
    width = (high - low) / NUM_BINS or 1.0
    counts = {
        name: np.bincount(
            np.minimum(((values - low) / width).astype(np.int64), NUM_BINS - 1), minlength=NUM_BINS
        ).tolist()
        for name, values in known.items()
    }
    return {"low": low, "high": high, **counts}
