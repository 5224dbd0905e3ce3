"""Paired comparison of models on the same prompts and seeds, the first folder being the baseline.

    python -m evaluation.compare runs/sft runs/dpo
    python -m evaluation.compare runs/sft runs/dpo runs/dpo_full --output runs/comparison

A folder is an output_dir of pipeline.run, or one that evaluation.run wrote. Counter-metrics are measured from its clips
and kept in its counter_metrics.parquet.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cli import StageSummary, atomic_write_text, config_to_dict, echo, package_versions, parse_config
from evaluation.compare.figures import Comparison, compare_all
from evaluation.compare.model_table import ModelTable, TableError
from evaluation.compare.render import comparison_csv, comparison_json, comparison_text
from evaluation.compare.shifts import MIN_SHIFT
from evaluation.compare.tables import PairedScores, pair_models, read_models

if TYPE_CHECKING:
    from evaluation.counters.table import CounterTable

ABOUT = (
    "Compares models on the same prompts and seeds: differences, intervals, wins, and tests corrected for their number."
)


@dataclass
class CompareConfig:
    folders: list[Path] = field(
        metadata={
            "help": "The baseline's folder, then those of one or more candidates: same prompts, same run seed. Each is "
            "an output_dir of pipeline.run, or the output of evaluation.run."
        }
    )
    output: str | None = field(
        default=None, metadata={"help": "Folder for the tables; default comparison/ in the first candidate's folder."}
    )
    num_bootstrap: int = field(default=10_000, metadata={"help": "Resamples of the paired bootstrap over prompts."})
    seed: int = field(default=0, metadata={"help": "Seed of the bootstrap and of the test."})
    counters: bool = field(
        default=True,
        metadata={"help": "Measure counter-metrics, such as loudness and motion, from the clips of all folders."},
    )
    min_shift: float = field(
        default=MIN_SHIFT,
        metadata={
            "help": "Least significant shift of a counter-metric that is named in a warning, as a share of the "
            "baseline's standard deviation."
        },
    )
    max_failures: int = field(default=0, metadata={"help": "Samples without a pair that still count as success."})
    dry_run: bool = field(
        default=False, metadata={"help": "Read and pair the tables, say how many pairs, write nothing."}
    )

    def __post_init__(self) -> None:
        if len(self.folders) < 2:
            raise ValueError(
                f"{len(self.folders)} folder is given, and nothing to compare it with: give the baseline's and at "
                "least one candidate's."
            )
        if self.num_bootstrap < 100:
            raise ValueError(
                f"num_bootstrap is {self.num_bootstrap}, too few for the 2.5 % and 97.5 % quantiles of an interval. "
                "Give at least 100; 10000 is the default."
            )
        if not self.min_shift >= 0:
            raise ValueError(f"min_shift is {self.min_shift}, but a shift has no sign here: give 0 or more.")

    @property
    def output_dir(self) -> Path:
        return Path(self.output) if self.output is not None else self.folders[1] / "comparison"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, write comparison.json, comparison.csv and summary.json.

    Returns 1 when more than max_failures samples have no pair, 2 when the tables cannot be compared.
    """
    start = time.perf_counter()
    config = parse_config(CompareConfig, argv, positional="folders", about=ABOUT)
    try:
        baseline, *candidates = read_models(config.folders)
        paired = [pair_models(baseline, candidate) for candidate in candidates]
    except TableError as error:
        sys.stderr.write(f"evaluation.compare: error: {error}\n")
        return 2
    if config.dry_run:
        for pairs in paired:
            counts = f"{pairs.num_pairs} pairs over {pairs.num_prompts} prompts, {pairs.num_left_out} left out"
            echo(f"compare: {pairs.names[1]} against {pairs.names[0]}: {counts}")
        return 0
    counters, notes = _counters([baseline, *candidates]) if config.counters else (None, [])
    comparisons = compare_all(
        paired, num_bootstrap=config.num_bootstrap, seed=config.seed, counters=counters, min_shift=config.min_shift
    )
    echo(comparison_text(comparisons, notes))
    summary = _summary(config, paired, time.perf_counter() - start)
    write_comparison(config.output_dir, comparisons, config_to_dict(config), notes)
    summary.write(config.output_dir)
    echo(summary.line())
    return 1 if summary.failed > config.max_failures else 0


def write_comparison(
    folder: Path, comparisons: Sequence[Comparison], settings: dict[str, Any], notes: Sequence[str] = ()
) -> None:
    """Write comparison.json and comparison.csv into `folder`, each atomically.

    Args:
        notes: on the counter-metrics.
    """
    atomic_write_text(folder / "comparison.json", comparison_json(comparisons, settings, notes))
    atomic_write_text(folder / "comparison.csv", comparison_csv(comparisons))


def _counters(models: Sequence[ModelTable]) -> tuple[dict[str, CounterTable] | None, list[str]]:
    """Return the counter-metrics of all models, and notes on them; None, and one note, where a model has no clips."""
    from evaluation.counters.table import read_counters  # late: imports scipy

    counters = {model.model: read_counters(model.folder) for model in models}
    without = [name for name, table in counters.items() if table.values.empty]
    if without:
        return None, [f"no counter-metrics, because the clips of {', '.join(without)} are not there"]
    return counters, [f"{name}: {note}" for name, table in counters.items() for note in table.notes]


def _summary(config: CompareConfig, paired: Sequence[PairedScores], seconds: float) -> StageSummary:
    done, failed = (sum(getattr(pairs, name) for pairs in paired) for name in ("num_pairs", "num_left_out"))
    return StageSummary(
        stage="compare",
        wanted=done + failed,
        done=done,
        skipped=0,
        failed=failed,
        seconds=seconds,
        settings=config_to_dict(config),
        versions=package_versions("numpy", "pandas", "pyarrow"),
    )


if __name__ == "__main__":
    sys.exit(main())
