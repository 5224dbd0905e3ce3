"""Results as text: a table in the paper's column order, categories, and problems."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from core.text_table import table_lines
from evaluation.judges.choose import Skipped
from evaluation.judges.metrics import GROUP_TITLES
from evaluation.run.evaluate import Results
from evaluation.run.results import Figure
from evaluation.run.samples import Problem
from evaluation.statistics.training_marks import Kind

MAX_NAMED = 5  # of each kind of problem
BAR = "\\|"  # in a cell of Markdown
TRAINING_WORDS: dict[Kind, str] = {"trained": "reward", "related": "related", "unknown": "?", "held_out": "held out"}
TRAINING_NOTE = (
    "training: 'reward' chose winners of pairs that the model was trained on, 'related' is of the same network as one "
    "that did, the others are held out"
)
UNKNOWN_NOTE = "training: which rewards the model was trained on is not known of these samples ('?')"


def results_text(results: Results) -> str:
    """Metrics as lines, grouped; then categories, generation time, what was skipped and what went wrong."""
    rows, name = len(results.benchmark), results.benchmark.path.name
    lines = [f"{name}: {len(results.samples.samples)} samples of {rows} rows; protocol {results.protocol}"]
    lines += [
        "",
        *table_lines([("", "value", "95 % interval", "n", "ground truth", "training"), *_metric_lines(results)]),
    ]
    if results.benchmark.categories and results.metrics:
        lines += ["", *table_lines(category_table(results))]
    seconds, count = results.generation_s
    if seconds is not None:
        lines += ["", f"generation: {seconds:.2f} s per clip (median of {count})"]
    lines += ["", TRAINING_NOTE if results.samples.lineage.is_complete else UNKNOWN_NOTE]
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


def results_markdown(results: Results, title: str) -> str:
    """The figures as Markdown: one row in the paper's column order with the time per clip last, then the categories."""
    seconds, count = results.generation_s
    timed = ["-" if seconds is None else f"{seconds:.2f}", str(count)]
    head = ("", *(one.metric.heading for one in results.metrics), "s / clip ↓")
    values = (title, *(_value(one.overall) for one in results.metrics), timed[0])
    counts = ("samples", *(str(one.overall.num_samples) for one in results.metrics), timed[1])
    tables = [[head, values, counts], category_table(results)]
    return "\n".join("\n".join(_markdown(lines)) + "\n" for lines in tables if len(lines) > 1)


def results_csv(results: Results) -> str:
    """A row for everything, then one per category: value, interval and number of samples of every metric."""
    buffer = io.StringIO()
    names = [f"{one.metric.name}{suffix}" for one in results.metrics for suffix in ("", "_low", "_high", "_n")]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["aspect", "category", *names])
    writer.writerow(["", "", *_cells([one.overall for one in results.metrics])])
    for aspect, categories in results.benchmark.categories.items():
        for name in categories:
            writer.writerow([aspect, name, *_cells([one.categories[aspect][name] for one in results.metrics])])
    return buffer.getvalue()


def _cells(figures: Sequence[Figure]) -> list[Any]:
    return [cell for one in figures for cell in (one.value, one.low, one.high, one.num_samples)]


def _metric_lines(results: Results) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for group, members in groupby(results.metrics, key=lambda one: one.metric.group):
        lines.append((GROUP_TITLES[group], *[""] * 5))
        for one in members:
            figure, mark = one.overall, TRAINING_WORDS[results.mark(one.metric).kind]
            interval = "-" if figure.low is None else f"{_number(figure.low)} .. {_number(figure.high)}"
            real = "" if figure.num_real is None else str(figure.num_real)
            lines.append((f"  {one.metric.heading}", _value(figure), interval, str(figure.num_samples), real, mark))
    return lines


def remarks(skipped: Sequence[Skipped], problems: Sequence[Problem]) -> list[str]:
    """Return the skipped metrics and the problems: counts, and the first of each kind."""
    lines = [f"skipped {one.metric}: {one.advice}" for one in skipped]
    for kind in dict.fromkeys(problem.kind for problem in problems):
        named = [one for one in problems if one.kind == kind]
        lines.append(f"{len(named)} {kind}:")
        lines += [f"  {' '.join(f'{one.name}: {one.reason}'.split())}" for one in named[:MAX_NAMED]]
        if len(named) > MAX_NAMED:
            lines.append(f"  ... and {len(named) - MAX_NAMED} more")
    return lines


def _value(figure: Figure) -> str:
    return _number(figure.value)


def _number(value: float | None) -> str:
    """Four decimals, or one where there are four digits before them."""
    return "-" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:.1f}"


def _markdown(lines: Sequence[tuple[str, ...]]) -> list[str]:
    head, *rows = (f"| {' | '.join(cell.replace('|', BAR) for cell in line)} |" for line in lines)
    return [head, "|---" * len(lines[0]) + "|", *rows]
