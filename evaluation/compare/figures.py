"""Figures of paired comparisons: means, differences with intervals and tests, and wins, per metric and modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from core.lineage import Lineage
from evaluation.compare.shifts import MIN_SHIFT, ShiftRow, compare_counters, shift_warnings
from evaluation.compare.tables import PairedScores
from evaluation.statistics.bootstrap import CONFIDENCE, bootstrap_interval
from evaluation.statistics.significance import holm, sign_flip_p_values
from evaluation.statistics.training_marks import TrainingMark, joined, mark
from rewards.metrics import MODALITY_METRICS

if TYPE_CHECKING:
    from evaluation.counters.table import CounterTable


@dataclass(frozen=True)
class ComparisonRow:
    """One line of the comparison; all figures are over the same `num_samples` pairs (None = undefined)."""

    kind: str  # "metric", "modality" (mean of standardised metrics) or "overall" (mean of the modalities)
    name: str
    higher_is_better: bool
    training: str  # kind of the TrainingMark: "trained", "related", "unknown" or "held_out"
    marked_models: tuple[str, ...]  # models of the TrainingMark
    num_samples: int
    num_prompts: int
    baseline_mean: float | None
    candidate_mean: float | None
    difference: float | None  # candidate - baseline
    difference_low: float | None  # paired bootstrap 95 % interval over prompts
    difference_high: float | None
    wins: int  # pairs that the candidate wins
    ties: int
    losses: int
    win_rate: float | None  # share of pairs that the candidate wins; a tie counts half
    win_rate_low: float | None
    win_rate_high: float | None
    p_value: float | None  # sign-flip test over prompts, two-sided
    p_corrected: float | None  # Holm, over all metrics of all candidates; modalities and overall form another family

    @property
    def verdict(self) -> str:
        """ "better" or "worse" if the corrected p-value is at most 1 - CONFIDENCE, else ""."""
        if self.p_corrected is None or self.p_corrected > 1 - CONFIDENCE or not self.difference:
            return ""
        return "better" if self.difference * self.sign > 0 else "worse"

    @property
    def sign(self) -> int:
        return 1 if self.higher_is_better else -1


@dataclass(frozen=True, eq=False)
class Comparison:
    """Comparison of a candidate with the baseline."""

    pairs: PairedScores
    rows: list[ComparisonRow]  # metrics, modalities, overall
    shifts: list[ShiftRow] = field(default_factory=list)  # counter-metrics, where they were measured
    warnings: tuple[str, ...] = ()  # of counter-metrics that moved


def compare_models(pairs: PairedScores, *, num_bootstrap: int, seed: int) -> list[ComparisonRow]:
    """Compare one candidate with the baseline on the same prompts and seeds.

    Args:
        pairs: scores of both models, as `read_pairs` returns them.
        num_bootstrap: resamples of the prompts for the intervals.
        seed: seed of the resamples and of the sign-flip test.

    Returns:
        A row per metric, then one per modality, then one overall.
    """
    [comparison] = compare_all([pairs], num_bootstrap=num_bootstrap, seed=seed)
    return comparison.rows


def compare_all(
    candidates: Sequence[PairedScores],
    *,
    num_bootstrap: int,
    seed: int,
    counters: Mapping[str, CounterTable] | None = None,
    min_shift: float = MIN_SHIFT,
) -> list[Comparison]:
    """Compare each candidate with the same baseline.

    p-values are corrected over all candidates, and training marks consider all models.

    Args:
        candidates: paired scores of each candidate with the baseline.
        num_bootstrap: number of bootstrap resamples.
        seed: seed of the resamples and of the sign flips.
        counters: model name -> its counter-metrics, of all models; None compares without them.
        min_shift: a counter-metric is named in a warning from this shift on, in the baseline's standard deviations.
    """
    lineages = {name: lineage for pairs in candidates for name, lineage in pairs.lineages.items()}
    found = [_rows(pairs, lineages, num_bootstrap, seed) for pairs in candidates]
    rows = [row for one in found for row in one]
    corrected: list[float | None] = [None] * len(rows)
    for is_metric in (True, False):
        family = [place for place, row in enumerate(rows) if (row.kind == "metric") == is_metric]
        for place, value in zip(family, holm([rows[place].p_value for place in family]), strict=True):
            corrected[place] = value
    values = iter(corrected)
    shifts: list[list[ShiftRow]] = [[] for _ in candidates]
    if counters is not None:
        shifts = compare_counters(candidates, counters, num_bootstrap=num_bootstrap, seed=seed)
    return [
        Comparison(
            pairs,
            [replace(row, p_corrected=next(values)) for row in one],
            moved,
            tuple(shift_warnings(pairs.names[1], moved, min_shift)),
        )
        for pairs, one, moved in zip(candidates, found, shifts, strict=True)
    ]


def _rows(pairs: PairedScores, lineages: Mapping[str, Lineage], num_bootstrap: int, seed: int) -> list[ComparisonRow]:
    """Return the rows of one candidate, with p-values that are not yet corrected."""
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
    p_values = sign_flip_p_values(differences, prompts, seed=seed)
    marks = _marks(pairs, lineages)
    rows, num_columns = [], len(kinds)
    for column, (name, kind) in enumerate(kinds.items()):
        defined = np.isfinite(differences[:, column])
        won = wins[defined, column]
        rows.append(
            ComparisonRow(
                kind=kind,
                name=name,
                higher_is_better=bool(directions[column]),
                training=marks[name].kind,
                marked_models=marks[name].models,
                num_samples=int(defined.sum()),
                num_prompts=len(np.unique(prompts[defined])),
                baseline_mean=_mean(left[defined, column]),
                candidate_mean=_mean(right[defined, column]),
                difference=_mean(differences[defined, column]),
                difference_low=_number(low[column]),
                difference_high=_number(high[column]),
                wins=int((won == 1).sum()),
                ties=int((won == 0.5).sum()),
                losses=int((won == 0).sum()),
                win_rate=_mean(won),
                win_rate_low=_number(low[num_columns + column]),
                win_rate_high=_number(high[num_columns + column]),
                p_value=_number(p_values[column]),
                p_corrected=None,
            )
        )
    return rows


def _marks(pairs: PairedScores, lineages: Mapping[str, Lineage]) -> dict[str, TrainingMark]:
    """Return the training marks of every metric, of every modality (from its metrics) and of "overall"."""
    marks = {name: mark(origin.column, origin.reward, lineages) for name, origin in pairs.origins.items()}
    modalities = {
        modality: joined([marks[name] for name in metrics if name in marks])
        for modality, metrics in MODALITY_METRICS.items()
    }
    return marks | modalities | {"overall": joined(modalities.values())}


def paired_columns(left: np.ndarray, right: np.ndarray, higher_is_better: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences right - left, and the wins of the right side: 1, 0, or 0.5 for a tie.

    All arrays are (N, K); results are NaN where a score is NaN. `higher_is_better` is (K,) bool.
    """
    differences = right - left
    wins = (np.sign(differences) * np.where(higher_is_better, 1, -1) + 1) / 2
    return differences, wins


def modality_scores(
    baseline: pd.DataFrame, candidate: pd.DataFrame, higher_is_better: Mapping[str, bool]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores per modality of both models: as in ranking, the mean of signed, standardised metrics.

    Metrics are standardised over the rows of both models. A sample with an undefined metric has no score in that
    modality. A metric without any score is left out of its modality. `overall` is the mean of the modalities.
    """
    both = pd.concat([baseline, candidate], ignore_index=True)
    deviation = both.std(ddof=1)
    # A constant metric carries no information: zero for every sample, not 0/0.
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
