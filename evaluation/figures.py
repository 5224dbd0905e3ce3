"""Figures of a paired comparison: means, differences with intervals, and win rates, per metric and per modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from evaluation.bootstrap import bootstrap_interval
from evaluation.tables import PairedScores
from rewards.metrics import MODALITY_METRICS


@dataclass(frozen=True)
class ComparisonRow:
    """One line of the comparison; every figure is over the same `num_samples` pairs (None = not defined)."""

    kind: str  # "metric", "modality" (mean of standardised metrics) or "overall" (mean of the modalities)
    name: str
    higher_is_better: bool
    num_samples: int
    num_prompts: int
    baseline_mean: float | None
    candidate_mean: float | None
    difference: float | None  # candidate - baseline
    difference_low: float | None  # paired bootstrap 95 % interval over prompts
    difference_high: float | None
    win_rate: float | None  # share of pairs that the candidate wins; a tie counts half
    win_rate_low: float | None
    win_rate_high: float | None

    @property
    def verdict(self) -> str:
        """ "better" or "worse" where the interval of the difference leaves out zero, else ""."""
        if self.difference_low is None or self.difference_high is None:
            return ""
        low, high = sorted((self.difference_low * self.sign, self.difference_high * self.sign))
        return "better" if low > 0 else "worse" if high < 0 else ""

    @property
    def sign(self) -> int:
        return 1 if self.higher_is_better else -1


def compare_models(pairs: PairedScores, *, num_bootstrap: int, seed: int) -> list[ComparisonRow]:
    """Rows for every metric, then every modality, then overall."""
    baseline, candidate = pairs.baseline, pairs.candidate
    modalities = modality_scores(baseline, candidate, pairs.higher_is_better)
    kinds = dict.fromkeys(baseline.columns, "metric") | dict.fromkeys(modalities[0].columns, "modality")
    if "overall" in kinds:
        kinds["overall"] = "overall"
    left = np.concatenate([baseline.to_numpy(), modalities[0].to_numpy()], axis=1)  # (N, K)
    right = np.concatenate([candidate.to_numpy(), modalities[1].to_numpy()], axis=1)  # (N, K)
    directions = np.array([pairs.higher_is_better.get(name, True) for name in kinds], dtype=bool)
    differences, wins = paired_columns(left, right, directions)
    _, prompts = np.unique(pairs.prompt_ids, return_inverse=True)
    low, high = bootstrap_interval(
        np.concatenate([differences, wins], axis=1), prompts, num_bootstrap=num_bootstrap, seed=seed
    )
    rows, num_columns = [], len(kinds)
    for column, (name, kind) in enumerate(kinds.items()):
        defined = np.isfinite(differences[:, column])
        rows.append(
            ComparisonRow(
                kind=kind,
                name=name,
                higher_is_better=bool(directions[column]),
                num_samples=int(defined.sum()),
                num_prompts=len(np.unique(prompts[defined])),
                baseline_mean=_mean(left[defined, column]),
                candidate_mean=_mean(right[defined, column]),
                difference=_mean(differences[defined, column]),
                difference_low=_number(low[column]),
                difference_high=_number(high[column]),
                win_rate=_mean(wins[defined, column]),
                win_rate_low=_number(low[num_columns + column]),
                win_rate_high=_number(high[num_columns + column]),
            )
        )
    return rows


def paired_columns(left: np.ndarray, right: np.ndarray, higher_is_better: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differences right - left, and wins of the right side (1, 0, or 0.5 for a tie); (N, K), NaN where either is."""
    differences = right - left
    wins = (np.sign(differences) * np.where(higher_is_better, 1, -1) + 1) / 2
    return differences, wins


def modality_scores(
    baseline: pd.DataFrame, candidate: pd.DataFrame, higher_is_better: Mapping[str, bool]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Per-modality scores as in ranking: metrics standardised over both models' rows, signed, averaged.

    A sample lacks a modality score where one of its metrics is undefined. A metric without any score is left out of
    its modality; `overall` is the mean of the modalities.
    """
    both = pd.concat([baseline, candidate], ignore_index=True)
    deviation = both.std(ddof=1)
    # A metric that never varies tells nothing: zero for every sample, rather than 0/0.
    standardised = (both - both.mean()) / deviation.where(deviation > 0, 1.0)
    for name in both.columns:
        standardised[name] *= 1 if higher_is_better[name] else -1
    scores = {}
    for modality, metrics in MODALITY_METRICS.items():
        present = [name for name in metrics if name in both.columns and both[name].notna().any()]
        if present:
            scores[modality] = standardised[present].mean(axis=1, skipna=False)
    frame = pd.DataFrame(scores, index=both.index)
    if scores:
        frame["overall"] = frame.mean(axis=1, skipna=False)
    return frame.iloc[: len(baseline)], frame.iloc[len(baseline) :]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
