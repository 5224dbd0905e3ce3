"""The page of an evaluation: tables and plots in one HTML file that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from evaluation.judges.metrics import GROUP_TITLES
from evaluation.run.evaluate import Results
from evaluation.run.results import Figure, MetricResult
from evaluation.run.text import TRAINING_NOTE, TRAINING_WORDS, UNKNOWN_NOTE

TEMPLATE_DIR = Path(__file__).parent / "template"
NUM_BINS = 30
PLOT_WIDTH, PLOT_HEIGHT = 280, 90  # of a histogram, in CSS pixels
BAR_WIDTH = 160
MAX_PROBLEMS = 200


@dataclass(frozen=True)
class Bar:
    """One category of a metric, drawn from the smallest to the largest end of all intervals of the metric."""

    label: str
    figure: Figure
    left: float  # of the interval, in pixels
    width: float
    dot: float


def results_page(results: Results, title: str) -> str:
    """HTML with the table of all metrics, a histogram of every score, categories, and what is missing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_DIR),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = number
    return environment.get_template("results.html.j2").render(
        title=title,
        results=results,
        groups=GROUP_TITLES,
        histograms={name: histogram(values) for name, values in results.scores.items()},
        bars={one.metric.name: category_bars(one) for one in results.metrics},
        training={one.metric.name: TRAINING_WORDS[results.mark(one.metric).kind] for one in results.metrics},
        training_note=TRAINING_NOTE if results.samples.lineage.is_complete else UNKNOWN_NOTE,
        problems=results.problems[:MAX_PROBLEMS],
        num_more=max(0, len(results.problems) - MAX_PROBLEMS),
        plot_width=PLOT_WIDTH,
        plot_height=PLOT_HEIGHT,
        bar_width=BAR_WIDTH,
    )


def number(value: float | None) -> str:
    """Four significant places; a dash where there is no number."""
    return "-" if value is None else f"{value:.4g}"


@dataclass(frozen=True)
class Histogram:
    """Distribution of the values of a score.

    Attributes:
        low, high: ends of the axis.
        bars: x, y, width and height in pixels, and the count.
    """

    low: float
    high: float
    bars: list[tuple[float, float, float, float, int]]


def histogram(values: np.ndarray) -> Histogram | None:
    """Return the histogram of the defined values; None without any."""
    defined = values[np.isfinite(values)].astype(np.float64)
    if not len(defined):
        return None
    counts, edges = np.histogram(defined, bins=NUM_BINS)
    width = PLOT_WIDTH / NUM_BINS
    heights = counts / counts.max() * PLOT_HEIGHT
    bars = [
        (round(place * width, 1), round(PLOT_HEIGHT - height, 1), round(width - 1, 1), round(height, 1), count)
        for place, (height, count) in enumerate(zip(heights.tolist(), counts.tolist(), strict=True))
        if count
    ]
    return Histogram(float(edges[0]), float(edges[-1]), bars)


def category_bars(result: MetricResult) -> dict[str, list[Bar]]:
    """Aspect -> a bar per category that has a value, all on one scale."""
    figures = [(aspect, name, one) for aspect, names in result.categories.items() for name, one in names.items()]
    defined = [(aspect, name, one) for aspect, name, one in figures if one.value is not None]
    ends = [end for _, _, one in defined for end in _ends(one)]
    if not ends:
        return {}
    low, span = min(ends), (max(ends) - min(ends)) or 1.0
    bars: dict[str, list[Bar]] = {}
    for aspect, name, one in defined:
        left, dot, right = ((end - low) / span * BAR_WIDTH for end in _ends(one))
        bars.setdefault(aspect, []).append(Bar(name, one, round(left, 1), round(right - left, 1), round(dot, 1)))
    return bars


def _ends(figure: Figure) -> tuple[float, float, float]:
    assert figure.value is not None, "only figures with a value are drawn"
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return low, figure.value, high
