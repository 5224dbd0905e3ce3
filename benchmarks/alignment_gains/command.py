"""Trains the rows of the benchmark, compares each with the starting model, and prints and writes the table.

    python -m benchmarks.alignment_gains --output_dir runs/alignment
    python -m benchmarks.alignment_gains --output_dir runs/mixed --model runs/mixed/model/ema --ceiling tiny

Finished parts are kept, so the same command continues an interrupted run; `--only nft` in a second process trains other
rows in the same folder once the pool is made. Choose settings with `--captions validation` and report with `fresh`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.alignment_gains.best_of import best_of
from benchmarks.alignment_gains.config import GainsConfig
from benchmarks.alignment_gains.report import markdown
from benchmarks.alignment_gains.rows import Row, chosen_rows
from benchmarks.alignment_gains.workshop import Workshop
from benchmarks.bounce_runs import compare
from core.atomic import atomic_write_text
from core.cli import echo, parse_config

BASELINE = "before"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    config = parse_config(GainsConfig, argv)
    rows = chosen_rows(config.only)
    workshop = Workshop(config)
    baseline = workshop.evaluation(config.model, BASELINE)
    figures = {"best_of_4": {0: best_of(workshop, baseline)}}
    if config.ceiling is not None:
        figures["ceiling"] = {0: compare(baseline, workshop.evaluation(config.ceiling, "ceiling"))}
    for row in rows:
        for seed in _seeds(config, row):
            name = f"{row.name}-seed{seed}"
            model = row.method(workshop, seed, config.output_dir / "models" / name)
            compared = compare(baseline, workshop.evaluation(str(model), name))
            figures.setdefault(row.name, {})[seed] = compared
            _write(config, figures)
    return 0


def _seeds(config: GainsConfig, row: Row) -> list[int]:
    return config.seeds if row.carries_claim else config.seeds[:1]


def _write(config: GainsConfig, figures: dict[str, dict[int, dict[str, Any]]]) -> None:
    """Write the table as Markdown, and print it."""
    text = markdown(figures, {row.name: row.shows for row in chosen_rows([])})
    atomic_write_text(config.output_dir / f"gains-{config.captions}.md", text + "\n")
    echo(text)
