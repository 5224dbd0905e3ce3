"""Paired comparison of two models on the same prompts and seeds.

python -m evaluation.compare --baseline runs/sft --candidate runs/dpo
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.figures import ComparisonRow, compare_models
from evaluation.render import comparison_csv, comparison_json, comparison_text
from evaluation.tables import PairedScores, TableError, read_pairs
from media.cli import StageSummary, atomic_write_text, config_to_dict, echo, package_versions, parse_config


@dataclass
class CompareConfig:
    baseline: str = field(metadata={"help": "output_dir of pipeline.sample + pipeline.score for the baseline model."})
    candidate: str = field(metadata={"help": "The same for the model under test: same prompts, same run seed."})
    output: str | None = field(
        default=None, metadata={"help": "Folder for the tables; default <candidate>/comparison."}
    )
    num_bootstrap: int = field(default=10_000, metadata={"help": "Resamples of the paired bootstrap over prompts."})
    seed: int = field(default=0, metadata={"help": "Seed of the bootstrap."})
    max_failures: int = field(default=0, metadata={"help": "Samples without a pair that still count as success."})
    dry_run: bool = field(
        default=False, metadata={"help": "Read and pair the tables, say how many pairs, write nothing."}
    )

    def __post_init__(self) -> None:
        if self.num_bootstrap < 100:
            raise ValueError(
                f"num_bootstrap is {self.num_bootstrap}, too few for the 2.5 % and 97.5 % quantiles of an interval. "
                "Give at least 100; 10000 is the default."
            )

    @property
    def output_dir(self) -> Path:
        return Path(self.output) if self.output is not None else Path(self.candidate) / "comparison"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, write comparison.json, comparison.csv and summary.json.

    Returns 1 when more than max_failures samples have no pair, 2 when the tables cannot be compared.
    """
    start = time.perf_counter()
    config = parse_config(CompareConfig, argv)
    try:
        pairs = read_pairs(Path(config.baseline), Path(config.candidate))
    except TableError as error:
        sys.stderr.write(f"evaluation.compare: error: {error}\n")
        return 2
    if config.dry_run:
        echo(
            f"compare: {pairs.num_pairs} pairs over {len(set(pairs.prompt_ids))} prompts, {pairs.num_left_out} left out"
        )
        return 0
    rows = compare_models(pairs, num_bootstrap=config.num_bootstrap, seed=config.seed)
    echo(comparison_text(rows, pairs))
    summary = _summary(config, pairs, time.perf_counter() - start)
    write_comparison(config.output_dir, rows, pairs, config_to_dict(config))
    summary.write(config.output_dir)
    echo(summary.line())
    return 1 if pairs.num_left_out > config.max_failures else 0


def write_comparison(
    folder: Path, rows: Sequence[ComparisonRow], pairs: PairedScores, settings: dict[str, Any]
) -> None:
    """Write comparison.json and comparison.csv into `folder`, each atomically."""
    atomic_write_text(folder / "comparison.json", comparison_json(rows, pairs, settings))
    atomic_write_text(folder / "comparison.csv", comparison_csv(rows))


def _summary(config: CompareConfig, pairs: PairedScores, seconds: float) -> StageSummary:
    return StageSummary(
        stage="compare",
        wanted=pairs.num_pairs + pairs.num_left_out,
        done=pairs.num_pairs,
        skipped=0,
        failed=pairs.num_left_out,
        seconds=seconds,
        settings=config_to_dict(config),
        versions=package_versions("numpy", "pandas", "pyarrow"),
    )


if __name__ == "__main__":
    sys.exit(main())
