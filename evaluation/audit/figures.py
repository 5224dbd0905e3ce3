"""The figures of an audit: failures, ties, variance and head-room of each reward, and correlations within prompts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from evaluation.audit.columns import RewardColumn
from evaluation.audit.findings import findings
from evaluation.audit.groups import GroupedScores, best_of_group, flat_share, tie_share, truth_wins
from evaluation.audit.result import Audit, Pairing, RewardFigures
from evaluation.counters.names import COUNTERS
from evaluation.statistics.correlation import correlations_within_groups


def audit(
    scores: pd.DataFrame,
    columns: Sequence[RewardColumn],
    *,
    counters: pd.DataFrame | None = None,
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> Audit:
    """Audit the scores of several candidates per prompt.

    Args:
        scores: one row per candidate: prompt_id, the columns of scores (NaN for a failed one), candidate_id where there
            are counters, and is_ground_truth where there is any.
        columns: the columns to audit.
        counters: counter-metrics, indexed by candidate_id (`evaluation.counters.read_counters`).
        num_bootstrap: resamples of the prompts for the intervals of correlations.
        seed: seed of the resamples.

    Raises:
        ValueError: there are no columns, or no generated candidates.
    """
    if not columns:
        raise ValueError("There are no reward columns to audit. Give some whose direction is known.")
    grouped = GroupedScores.of(scores, columns)
    overall, overall_truth = grouped.overall()
    result = Audit(
        columns=tuple(columns),
        group_sizes=tuple(sorted(np.bincount(grouped.groups).tolist())),
        num_ground_truth=len(grouped.truth),
        rewards=tuple(_figures(grouped, place) for place in range(len(columns))),
        headroom=best_of_group(overall, grouped.groups),
        truth_wins=truth_wins(overall, grouped.groups, overall_truth, grouped.truth_groups),
        correlations=tuple(_correlations(grouped, counters, num_bootstrap, seed)),
    )
    return replace(result, warnings=tuple(findings(result)))


def _figures(grouped: GroupedScores, place: int) -> RewardFigures:
    column, values, groups = grouped.columns[place], grouped.scores[:, place], grouped.groups
    known = np.isfinite(values)
    within, between = _deviations(values[known], groups[known])
    best, spread = best_of_group(values, groups), float(values[known].std()) if known.any() else 0.0
    return RewardFigures(
        name=column.name,
        modality=column.modality,
        num_candidates=len(values),
        failed=float(1 - known.mean()),
        ties=tie_share(values[known], groups[known]),
        flat_groups=flat_share(values[known], groups[known]),
        within_std=within,
        between_std=between,
        headroom=best / spread if best is not None and spread > 0 else None,
        truth_wins=truth_wins(values, groups, grouped.truth[:, place], grouped.truth_groups),
    )


def _deviations(values: np.ndarray, groups: np.ndarray) -> tuple[float | None, float | None]:
    """Return the standard deviation around the means of the groups, and that of the means."""
    _, codes = np.unique(groups, return_inverse=True)
    counts = np.bincount(codes)
    if not len(counts):
        return None, None
    means = np.bincount(codes, values) / counts
    freedom = len(values) - len(counts)
    within = float(np.sqrt(np.square(values - means[codes]).sum() / freedom)) if freedom else None
    return within, float(means.std(ddof=1)) if len(means) > 1 else None


def _correlations(
    grouped: GroupedScores, counters: pd.DataFrame | None, num_bootstrap: int, seed: int
) -> list[Pairing]:
    """Return the correlations of every two rewards, then of every reward with every counter-metric that is known."""
    names = [column.name for column in grouped.columns]
    pairs = [("rewards", *pair) for pair in itertools.combinations(range(len(names)), 2)]
    values = [grouped.scores]
    if counters is not None:
        table = counters.reindex(grouped.candidate_ids)
        known = [counter.name for counter in COUNTERS if counter.name in table and table[counter.name].notna().any()]
        values.append(table[known].to_numpy(dtype=np.float64))
        pairs += [("counter", i, len(names) + j) for i in range(len(names)) for j in range(len(known))]
        names += known
    found = correlations_within_groups(
        np.concatenate(values, axis=1),
        [(first, second) for _, first, second in pairs],
        grouped.groups,
        num_bootstrap=num_bootstrap,
        seed=seed,
    )
    return [
        Pairing(kind, names[first], names[second], one) for (kind, first, second), one in zip(pairs, found, strict=True)
    ]
