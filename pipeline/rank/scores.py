"""Scores that are comparable between metrics: standardised over the table or by saved statistics, or ranked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.rank.input import RANKED_METRICS, SIGNS, Candidates
from rewards.metrics import MODALITY_METRICS

_GROUPS = [[RANKED_METRICS.index(metric) for metric in metrics] for metrics in MODALITY_METRICS.values()]


@dataclass(frozen=True, eq=False)
class Scale:
    """Mean and sample deviation of each ranked metric, signed so that higher is better; 0 if it never varies."""

    mean: np.ndarray  # (metrics,)
    std: np.ndarray  # (metrics,)
    count: int  # number of candidates used

    @staticmethod
    def of(candidates: Candidates) -> Scale:
        """Compute mean and deviation over the candidates with all scores, ground truth included."""
        mean, std = np.zeros(len(RANKED_METRICS)), np.zeros(len(RANKED_METRICS))
        count = int(candidates.scored.sum())
        for k, row in enumerate(candidates.signed):
            used = row if count == len(row) else row[candidates.scored]
            if count:
                mean[k] = used.mean()
            if count > 1 and np.ptp(used) > 0:  # rounding can give equal values a deviation of 1e-17
                std[k] = used.std(ddof=1)
        return Scale(mean, std, count)

    @staticmethod
    def from_dict(statistics: Mapping[str, Mapping[str, float]]) -> Scale:
        """Invert `to_dict`. Raises ValueError if a metric is missing or its numbers are not valid."""
        wanted = [_statistic(statistics, metric) for metric in RANKED_METRICS]
        mean, std, count = (np.array(column, float) for column in zip(*wanted, strict=True))
        return Scale(mean * SIGNS, std, int(count.min()))

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Return mean (in the table's own sign), std and count per metric."""
        return {
            metric: {"mean": float(self.mean[k] * SIGNS[k]), "std": float(self.std[k]), "count": self.count}
            for k, metric in enumerate(RANKED_METRICS)
        }

    def standardise(self, signed: np.ndarray, metric: int) -> np.ndarray:
        """Return the values of one metric minus its mean, over its deviation; 0 for a metric that never varies."""
        if self.std[metric] == 0:
            return np.zeros(signed.shape)
        return (signed - self.mean[metric]) / self.std[metric]


def read_statistics(path: Path) -> dict[str, dict[str, float]]:
    """Read the statistics in the ranking.json of an earlier run.

    Raises:
        ValueError: the file does not exist or holds no statistics of a ranking.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Give the ranking.json of an earlier `python -m pipeline.rank`.")
    try:
        statistics = json.loads(path.read_text(encoding="utf-8"))["statistics"]
        Scale.from_dict(statistics)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no statistics of a ranking ({error}). Give the ranking.json of `python -m pipeline.rank`."
        ) from error
    return statistics


def modality_scores(candidates: Candidates, scale: Scale) -> np.ndarray:
    """Return (modalities, N): the mean of each modality's standardised metrics."""
    return _means(candidates, lambda k: scale.standardise(candidates.signed[k], k))


def rank_scores(candidates: Candidates, eligible: np.ndarray) -> np.ndarray:
    """Return (modalities, N): the mean of each modality's ranks in the table; 1 is the worst.

    Only eligible candidates are ranked; others get NaN. Equal values share their mean rank.
    """
    return _means(candidates, lambda k: pd.Series(np.where(eligible, candidates.signed[k], np.nan)).rank().to_numpy())


def _means(candidates: Candidates, basis: Any) -> np.ndarray:
    scores = np.zeros((len(_GROUPS), len(candidates.scored)))
    for total, group in zip(scores, _GROUPS, strict=True):
        for k in group:  # one metric at a time, so that millions of candidates fit in memory
            total += basis(k)
        total /= len(group)
    return scores


def _statistic(statistics: Mapping[str, Mapping[str, float]], metric: str) -> tuple[float, float, float]:
    if metric not in statistics:
        raise ValueError(f"no entry for {metric}")
    mean, std, count = (float(statistics[metric][name]) for name in ("mean", "std", "count"))
    if not np.isfinite([mean, std]).all() or std < 0:
        raise ValueError(f"{metric} has mean {mean} and std {std}")
    return mean, std, count
