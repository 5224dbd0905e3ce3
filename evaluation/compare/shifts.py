"""Shifts of counter-metrics between two models: differences with intervals and tests, but without a direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from evaluation.compare.tables import PairedScores
from evaluation.counters.names import BY_NAME, DIVERSITY
from evaluation.judges.metrics import METRICS
from evaluation.statistics.bootstrap import CONFIDENCE, bootstrap_interval
from evaluation.statistics.significance import holm, sign_flip_p_values
from rewards.metrics import TEXT_METRICS

if TYPE_CHECKING:
    from evaluation.counters.table import CounterTable

TEXT_COLUMNS = {*TEXT_METRICS, *(metric.output for metric in METRICS if metric.group == "text")}
MIN_SHIFT = 0.2  # of the baseline's standard deviation: a small effect by Cohen's convention


@dataclass(frozen=True)
class ShiftRow:
    """A counter-metric, or a score of the agreement with the prompt, over the same `num_samples` pairs.

    Attributes:
        kind: "counter", or "text" for a score of the agreement with the prompt.
        deviations: the difference in standard deviations of the baseline's samples; None where these do not vary.
        p_corrected: Holm, over the counter-metrics of all candidates.
    """

    kind: str
    name: str
    unit: str
    num_samples: int
    num_prompts: int
    baseline_mean: float | None
    candidate_mean: float | None
    difference: float | None  # candidate - baseline
    difference_low: float | None  # paired bootstrap 95 % interval over prompts
    difference_high: float | None
    deviations: float | None
    p_value: float | None  # sign-flip test over prompts, two-sided
    p_corrected: float | None

    @property
    def verdict(self) -> str:
        """ "shift" if the corrected p-value is at most 1 - CONFIDENCE, else ""."""
        is_significant = self.p_corrected is not None and self.p_corrected <= 1 - CONFIDENCE
        return "shift" if is_significant and self.difference else ""

    @property
    def is_harmless(self) -> bool:
        """Return whether the shift is one that nobody has to be warned of.

        Closer agreement with the prompt is no hack, nor is sound that has come closer to the picture.
        """
        assert self.baseline_mean is not None
        assert self.candidate_mean is not None
        if self.name == "av_offset":
            return abs(self.candidate_mean) <= abs(self.baseline_mean)
        return self.kind == "text" and self.candidate_mean > self.baseline_mean


def compare_counters(
    candidates: Sequence[PairedScores], counters: Mapping[str, CounterTable], *, num_bootstrap: int, seed: int
) -> list[list[ShiftRow]]:
    """Compare the counter-metrics of each candidate with the baseline's.

    Args:
        candidates: paired scores of each candidate with the same baseline.
        counters: model name -> its counter-metrics. A candidate has no rows where it or the baseline has none.
        num_bootstrap: number of bootstrap resamples.
        seed: seed of the resamples and of the sign flips.

    Returns:
        The rows of each candidate.
    """
    found = [_rows(pairs, counters, num_bootstrap, seed) for pairs in candidates]
    corrected = iter(holm([row.p_value for rows in found for row in rows]))
    return [[replace(row, p_corrected=next(corrected)) for row in rows] for rows in found]


def shift_warnings(name: str, rows: Sequence[ShiftRow], min_shift: float) -> list[str]:
    """Return a sentence for each significant shift of at least `min_shift` standard deviations of the baseline.

    Args:
        name: of the candidate.
        rows: of the candidate.
        min_shift: below it a shift is shown in the table only.
    """
    moved = [row for row in rows if row.verdict and not row.is_harmless]
    return [
        f"{name}: {_figures(row)}: {_meaning(row)}"
        for row in moved
        if row.deviations is None or abs(row.deviations) >= min_shift
    ]


def _rows(pairs: PairedScores, counters: Mapping[str, CounterTable], num_bootstrap: int, seed: int) -> list[ShiftRow]:
    """Return the rows of one candidate, with p-values that are not yet corrected."""
    tables = [counters[name].values.reindex(pairs.baseline.index) for name in pairs.names]
    if any(table.isna().all(axis=None) for table in tables):
        return []
    text = [name for name, origin in pairs.origins.items() if origin.column in TEXT_COLUMNS]
    left, right = (
        pd.concat([table, scores[text]], axis=1)
        for table, scores in zip(tables, (pairs.baseline, pairs.candidate), strict=True)
    )
    known = (left.notna() & right.notna()).any()  # latents that were not kept, a single sample per prompt
    asked = set(pairs.baseline) - set(text)  # a reward has a column of this name: it is a metric, with a direction
    names = [name for name in left.columns if known[name] and name not in asked]
    before, after = left[names].to_numpy(), right[names].to_numpy()  # (N, K)
    differences = after - before
    _, prompts = np.unique(pairs.prompt_ids, return_inverse=True)
    low, high = bootstrap_interval(differences, prompts, num_bootstrap=num_bootstrap, seed=seed)
    p_values = sign_flip_p_values(differences, prompts, seed=seed)
    rows = []
    for column, name in enumerate(names):
        defined = np.isfinite(differences[:, column])
        difference, spread = differences[defined, column].mean(), before[defined, column].std()
        rows.append(
            ShiftRow(
                kind="counter" if name in BY_NAME else "text",
                name=name,
                unit=BY_NAME[name].unit if name in BY_NAME else "score",
                num_samples=int(defined.sum()),
                num_prompts=len(np.unique(prompts[defined])),
                baseline_mean=float(before[defined, column].mean()),
                candidate_mean=float(after[defined, column].mean()),
                difference=float(difference),
                difference_low=_number(low[column]),
                difference_high=_number(high[column]),
                deviations=float(difference / spread) if spread > 0 else None,
                p_value=_number(p_values[column]),
                p_corrected=None,
            )
        )
    return rows


def _figures(row: ShiftRow) -> str:
    digits = BY_NAME[row.name].digits if row.name in BY_NAME else 3
    values = (row.difference, row.difference_low, row.difference_high)
    difference, low, high = ("?" if value is None else f"{value:+.{digits}f}" for value in values)
    unit = f" {row.unit}" if row.unit in ("dB", "s", "heights/s") else ""
    spread = "" if row.deviations is None else f", {row.deviations:+.2f} of the baseline's standard deviations"
    return f"{row.name} {difference}{unit} ({low} .. {high}{spread})"


def _meaning(row: ShiftRow) -> str:
    if row.kind == "text":
        return "the samples follow their prompts less"
    if row.name == "av_offset":
        return "sound that is always late, or always early, is a shortcut"
    if row.name in DIVERSITY and row.difference is not None and row.difference < 0:
        return "the samples of a prompt have become more alike"
    return "no reward asked for it"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
