"""Cells of the text tables: figures and intervals."""

from __future__ import annotations

from evaluation.statistics.bootstrap import CONFIDENCE

INTERVAL = f"{CONFIDENCE:.0%} interval"  # heading


def figure(value: float | None, form: str = ".4f") -> str:
    """Return a number as text; "-" where it is undefined."""
    return "-" if value is None else format(value, form)


def interval(low: float | None, high: float | None) -> str:
    """Return an interval of a difference as text; "-" where it is undefined."""
    return "-" if low is None or high is None else f"[{low:+.4f}, {high:+.4f}]"
