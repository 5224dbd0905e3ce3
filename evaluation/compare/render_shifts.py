"""The section of the counter-metrics in the text of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from core.text_table import table_lines
from evaluation.compare.cells import INTERVAL, figure, interval
from evaluation.compare.figures import Comparison
from evaluation.compare.shifts import ShiftRow

_HEADER = ("", "unit", "n", "baseline", "candidate", "difference", INTERVAL, "deviations", "p", "Holm p", "")


def shift_lines(comparison: Comparison) -> list[str]:
    """Return the heading, the table and the warnings of one candidate; nothing without counter-metrics."""
    if not comparison.shifts:
        return []
    baseline, candidate = comparison.pairs.names
    table = table_lines([_HEADER, *map(_cells, comparison.shifts)], "llrrrrrrrrl")
    warnings = (f"warning: {text}" for text in comparison.warnings)
    return [f"Counter-metrics of {candidate} against {baseline}: no direction is better", *table, *warnings]


def shift_explanations(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the legend of the tables; nothing without counter-metrics."""
    if not any(one.shifts for one in comparisons):
        return []
    several = " of all candidates" if len(comparisons) > 1 else ""
    return [
        "deviations: difference over the standard deviation of the baseline's samples.",
        f"Holm p: corrected over all counter-metrics{several}; shift: Holm p of at most 0.05.",
        "av_offset: median time of an onset heard less that of one seen; positive when the sound is late.",
    ]


def _cells(row: ShiftRow) -> tuple[str, ...]:
    return (
        row.name,
        row.unit,
        str(row.num_samples),
        figure(row.baseline_mean),
        figure(row.candidate_mean),
        figure(row.difference, "+.4f"),
        interval(row.difference_low, row.difference_high),
        figure(row.deviations, "+.2f"),
        figure(row.p_value),
        figure(row.p_corrected),
        row.verdict,
    )
