"""The table of gains as Markdown, a line per row of the benchmark with all its seeds."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.bounce_runs import change
from evaluation.compare.figures import ComparisonRow

Figures = Mapping[str, ComparisonRow]  # metric or modality -> its comparison with the starting model
MODALITIES = ("video", "audio", "audio_video")
CEILING = "ceiling"


def markdown(figures: Mapping[str, Mapping[int, Figures]], shows: Mapping[str, str]) -> str:
    """Return the table: row -> seed -> its comparison; `shows` says what a row is there for.

    With a row "ceiling", the last columns are the shares of the gap to the ceiling that a row closes.
    """
    ceiling = next(iter(figures.get(CEILING, {}).values()), None)
    header = ["row", "seed", "overall", *MODALITIES, "win %", "desync, s"]
    header += [f"gap closed, {name}" for name in MODALITIES] if ceiling else []
    lines = ["| " + " | ".join([*header, "shows"]) + " |", "|" + "---|" * (len(header) + 1)]
    for name, seeds in figures.items():
        for seed, found in seeds.items():
            cells = [
                name,
                str(seed) if name in shows else "",
                *(change(found[key]) for key in ("overall", *MODALITIES)),
            ]
            cells += [f"{100 * (found['overall'].win_rate or 0):.1f}", _means(found["desync"])]
            cells += [_share(found[key], ceiling[key]) for key in MODALITIES] if ceiling else []
            lines.append("| " + " | ".join([*cells, shows.get(name, "")]) + " |")
    return "\n".join(lines)


def _means(row: ComparisonRow) -> str:
    return f"{row.baseline_mean:.3f} > {row.candidate_mean:.3f}"


def _share(row: ComparisonRow, ceiling: ComparisonRow) -> str:
    if not ceiling.difference or row.difference is None:
        return "-"
    return f"{row.difference / ceiling.difference:.0%}"
