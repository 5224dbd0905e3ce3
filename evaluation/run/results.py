"""The figures of a benchmark: every metric over all samples and over each category, with intervals and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.judges.metrics import Distance, Metric
from evaluation.run.categories import Categories
from evaluation.statistics.bootstrap import bootstrap_interval
from evaluation.statistics.distances import frechet_distance, kernel_distance
from rewards.base import Protocol

DISTANCES: dict[Distance, Callable[..., float]] = {"frechet": frechet_distance, "kernel": kernel_distance}


@dataclass(frozen=True)
class Figure:
    """A number with its interval and its counts.

    Attributes:
        value: None where it is not defined, such as a distance of fewer than two clips.
        low, high: 95 % bootstrap interval over the benchmark's rows; None for a distance, which has no such interval.
        num_samples: samples with a value; for a distance, those that it is made of.
        num_real: ground-truth clips that a distance compares with; None for a score.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    num_samples: int = 0
    num_real: int | None = None


@dataclass(frozen=True)
class MetricResult:
    """A metric over everything, and by aspect and category."""

    metric: Metric
    overall: Figure
    categories: dict[str, dict[str, Figure]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Measured:
    """Input of one metric.

    Attributes:
        values: (N,) scores or (N, width) features of the samples, NaN where undefined.
        real: (M, width) features of ground truth; None for a score.
        real_rows: (M,) the benchmark's row of each; None where the rows are not known.
    """

    values: np.ndarray
    real: np.ndarray | None = None
    real_rows: np.ndarray | None = None


Group = tuple[str, str]  # aspect, category


def metric_results(
    measured: Mapping[str, tuple[Metric, Measured]],
    rows: np.ndarray,
    categories: Categories,
    *,
    protocol: Protocol,
    num_bootstrap: int,
    seed: int,
) -> list[MetricResult]:
    """Return all figures of all metrics.

    Args:
        measured: by the metric's name.
        rows: (N,) the benchmark's row of each sample, which intervals are over.
    """
    groups = {(aspect, name): members for aspect, names in categories.items() for name, members in names.items()}
    scores = {name: one.values for name, (metric, one) in measured.items() if metric.distance is None}
    figures = _scores(scores, rows, groups, num_bootstrap, seed)
    for name, (metric, one) in measured.items():
        if metric.distance is not None:
            parts = {key: _distance(metric, _part(one, rows, members), protocol) for key, members in groups.items()}
            figures[name] = {None: _distance(metric, one, protocol)} | parts
    return [
        MetricResult(metric, figures[name][None], _by_aspect(figures[name], categories))
        for name, (metric, _) in measured.items()
    ]


def _by_aspect(figures: Mapping[Group | None, Figure], categories: Categories) -> dict[str, dict[str, Figure]]:
    return {aspect: {name: figures[aspect, name] for name in names} for aspect, names in categories.items()}


def _scores(
    scores: Mapping[str, np.ndarray],
    rows: np.ndarray,
    groups: Mapping[Group, np.ndarray],
    num_bootstrap: int,
    seed: int,
) -> dict[str, dict[Group | None, Figure]]:
    """Means over everything (None) and over each group, all from one set of resamples of the rows."""
    if not scores:
        return {}
    inside = [np.ones(len(rows), bool), *(np.isin(rows, members) for members in groups.values())]
    columns = [np.where(mask, values, np.nan) for values in scores.values() for mask in inside]
    table = np.stack(columns, axis=1).astype(np.float64)
    low, high = bootstrap_interval(table, rows, num_bootstrap=num_bootstrap, seed=seed)
    figures = iter([_mean(table[:, number], low[number], high[number]) for number in range(table.shape[1])])
    keys: list[Group | None] = [None, *groups]
    return {name: {key: next(figures) for key in keys} for name in scores}


def _mean(column: np.ndarray, low: float, high: float) -> Figure:
    defined = column[np.isfinite(column)]
    if not len(defined):
        return Figure(None)
    ends = (float(low), float(high)) if np.isfinite(low) else (None, None)
    return Figure(float(defined.mean()), ends[0], ends[1], len(defined))


def _part(measured: Measured, rows: np.ndarray, members: np.ndarray) -> Measured:
    """The samples and the ground truth of a category; no ground truth where its rows are not known."""
    assert measured.real is not None, "a distance has ground truth"
    own = np.zeros(len(measured.real), bool)
    if measured.real_rows is not None:
        own = np.isin(measured.real_rows, members)
    return Measured(measured.values[np.isin(rows, members)], measured.real[own], None)


def _distance(metric: Metric, measured: Measured, protocol: Protocol) -> Figure:
    assert metric.distance is not None, f"{metric.name} is a score"
    assert measured.real is not None, "a distance has ground truth"
    generated, real = (features[np.isfinite(features).all(axis=1)] for features in (measured.values, measured.real))
    if protocol == "javisbench":  # the first rows of each, as many as the shorter has: so does the release
        shortest = min(len(generated), len(real))
        generated, real = generated[:shortest], real[:shortest]
    if min(len(generated), len(real)) < 2:
        return Figure(None, num_samples=len(generated), num_real=len(real))
    value = metric.scale * DISTANCES[metric.distance](real, generated, protocol=protocol)
    return Figure(value, num_samples=len(generated), num_real=len(real))


def undefined_rows(values: np.ndarray) -> np.ndarray:
    """Return the samples without a value; `values` are (N,) or (N, width)."""
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return np.flatnonzero(~finite)


def median_generation_s(seconds: Sequence[float | None]) -> tuple[float | None, int]:
    """Return the median time of generating a clip, and the number of clips."""
    known = [value for value in seconds if value is not None]
    return (float(np.median(known)) if known else None), len(known)
