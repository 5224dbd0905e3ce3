"""Plots of a ranking, drawn from ranking.json alone: distributions, and agreement of the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.rank.input import RANKED_METRICS
from pipeline.rank.rules import MODALITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGINS = (*(f"margin_{name}" for name in MODALITIES), "margin")
COLOURS = {"generated": "#4878a8", "ground_truth": "#c8782c", "pairs": "#4878a8"}


def draw_plots(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write metrics.png, margins.png and agreement.png into `folder` (created if missing). Needs no display."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"metrics": _metrics(report), "margins": _margins(report), "agreement": _agreement(report)}
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=100)
    return paths


def _figure(
    num_rows: int, num_columns: int, width: float, height: float, margins: tuple[float, ...]
) -> tuple[Figure, list[Axes]]:
    """Make a figure. margins: left, bottom, right, top, space between columns, space between rows."""
    from matplotlib.figure import Figure  # imported late; pyplot would look for a display

    figure = Figure(figsize=(width, height))
    axes = list(np.ravel(figure.subplots(num_rows, num_columns)))
    figure.subplots_adjust(*margins)  # a computed layout would take four times as long
    return figure, axes


def _metrics(report: dict[str, Any]) -> Figure:
    """Draw a histogram per metric, as shares of the generated and of the ground-truth candidates."""
    figure, axes = _figure(2, 4, 13, 6, (0.04, 0.06, 0.99, 0.88, 0.22, 0.3))
    for axis, metric in zip(axes, RANKED_METRICS, strict=False):
        _histogram(axis, report["distributions"][metric], metric)
    for axis in axes[len(RANKED_METRICS) :]:
        axis.axis("off")
    if axes[0].patches:
        axes[-1].legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="center")
    figure.suptitle(f"Scores of {report['candidates']['total']:,} candidates (share per bin)")
    return figure


def _margins(report: dict[str, Any]) -> Figure:
    figure, axes = _figure(1, 4, 13, 3.4, (0.04, 0.1, 0.99, 0.8, 0.22, 0))
    for axis, name in zip(axes, MARGINS, strict=True):
        _histogram(axis, report["distributions"][name], name)
        axis.axvline(0, color="black", linewidth=0.6)
    figure.suptitle(f"Margins of {report['num_pairs']:,} pairs (share per bin)")
    return figure


def _histogram(axis: Axes, histogram: dict[str, Any], title: str) -> None:
    groups = {name: np.array(counts) for name, counts in histogram.items() if name not in ("low", "high")}
    for name, counts in groups.items():
        if counts.sum():
            edges = np.linspace(histogram["low"], max(histogram["high"], histogram["low"] + 1e-9), len(counts) + 1)
            label = f"{name.replace('_', ' ')} ({counts.sum():,})"
            axis.stairs(counts / counts.sum(), edges, fill=True, alpha=0.5, color=COLOURS[name], label=label)
    axis.set_title(title, fontsize=10)
    axis.tick_params(labelsize=8)


def _agreement(report: dict[str, Any]) -> Figure:
    """Draw two matrices over metrics and modalities: conflict on the better candidate, correlation within prompts."""
    figure, axes = _figure(1, 2, 14, 6.8, (0.09, 0.14, 0.99, 0.95, 0.25, 0))
    _matrix(axes[0], report["conflict"], "order two candidates of a prompt differently", "Reds", (0.0, 0.6))
    _matrix(axes[1], report["correlation_within_prompts"], "correlation within prompts", "RdBu", (-1.0, 1.0))
    return figure


def _matrix(
    axis: Axes, matrix: dict[str, dict[str, Any]], title: str, colours: str, limits: tuple[float, float]
) -> None:
    names = list(matrix)
    values = np.array([[np.nan if value is None else value for value in matrix[name].values()] for name in names])
    axis.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1])
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            shade = (value - limits[0]) / (limits[1] - limits[0])
            colour = "white" if shade > 0.7 or (limits[0] < 0 and shade < 0.3) else "black"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_title(title, fontsize=10)
