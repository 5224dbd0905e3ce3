"""Results as people read them: a table in the paper's column order, categories, and what is missing."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from evaluation.evaluate import Results
from evaluation.extractors import Skipped
from evaluation.metrics import GROUP_TITLES
from evaluation.results import Figure, MetricResult
from evaluation.samples import Problem

MAX_NAMED = 5  # of each kind of problem


def results_text(results: Results) -> str:
    """Metrics as lines, grouped; then categories, generation time, what was skipped and what went wrong."""
    rows, name = len(results.benchmark), results.benchmark.path.name
    lines = [f"{name}: {len(results.samples.samples)} samples of {rows} rows; protocol {results.protocol}"]
    lines += ["", *_aligned([("", "value", "95 % interval", "n", "ground truth"), *_metric_lines(results.metrics)])]
    if results.benchmark.categories and results.metrics:
        lines += ["", *_aligned(category_table(results))]
    seconds, count = results.generation_s
    if seconds is not None:
        lines += ["", f"generation: {seconds:.2f} s per clip (median of {count})"]
    found = remarks(results.skipped, results.problems)
    return "\n".join([*lines, *([""] if found else []), *found])


def category_table(results: Results) -> list[tuple[str, ...]]:
    """A line per category, a column per metric, in the paper's order; the first line names the columns."""
    header = ("category", "n", *(one.metric.heading for one in results.metrics))
    lines = [header]
    for aspect, names in results.benchmark.categories.items():
        for name in names:
            figures = [one.categories[aspect][name] for one in results.metrics]
            most = max((figure.num_samples for figure in figures), default=0)
            lines.append((f"{aspect}: {name}", str(most), *(_value(figure) for figure in figures)))
    return lines


def paper_table(results: Results) -> str:
    """The overall figures as one Markdown row in the paper's column order, with the time per clip last."""
    headings = [one.metric.heading for one in results.metrics]
    seconds, _ = results.generation_s
    cells = [_value(one.overall) for one in results.metrics]
    head = [*headings, "s / clip ↓"]
    return "\n".join(
        [_row(head), "|" + "---|" * len(head), _row([*cells, "-" if seconds is None else f"{seconds:.2f}"])]
    )


def results_csv(results: Results) -> str:
    """A row for everything, then one per category: value and number of samples of every metric."""
    buffer = io.StringIO()
    names = [column for one in results.metrics for column in (one.metric.name, f"{one.metric.name}_n")]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["aspect", "category", *names])
    writer.writerow(["", "", *_cells([one.overall for one in results.metrics])])
    for aspect, categories in results.benchmark.categories.items():
        for name in categories:
            writer.writerow([aspect, name, *_cells([one.categories[aspect][name] for one in results.metrics])])
    return buffer.getvalue()


def _cells(figures: Sequence[Figure]) -> list[Any]:
    return [cell for one in figures for cell in ("" if one.value is None else one.value, one.num_samples)]


def _metric_lines(metrics: Sequence[MetricResult]) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for group, members in groupby(metrics, key=lambda one: one.metric.group):
        lines.append((GROUP_TITLES[group], "", "", "", ""))
        for one in members:
            figure = one.overall
            interval = "-" if figure.low is None else f"{figure.low:.4f} .. {figure.high:.4f}"
            real = "" if figure.num_real is None else str(figure.num_real)
            lines.append((f"  {one.metric.heading}", _value(figure), interval, str(figure.num_samples), real))
    return lines


def remarks(skipped: Sequence[Skipped], problems: Sequence[Problem]) -> list[str]:
    """The metrics that cannot be computed, and what is not as it should be: counts, and the first of each kind."""
    lines = [f"skipped {one.metric}: {one.advice}" for one in skipped]
    for kind in dict.fromkeys(problem.kind for problem in problems):
        named = [one for one in problems if one.kind == kind]
        lines.append(f"{len(named)} {kind}:")
        lines += [f"  {' '.join(f'{one.name}: {one.reason}'.split())}" for one in named[:MAX_NAMED]]
        if len(named) > MAX_NAMED:
            lines.append(f"  ... and {len(named) - MAX_NAMED} more")
    return lines


def _value(figure: Figure) -> str:
    return "-" if figure.value is None else f"{figure.value:.4f}" if abs(figure.value) < 1000 else f"{figure.value:.1f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = []
    for first, *rest in lines:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        aligned.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return aligned
