"""Runs on Bounce captions that several benchmarks share: prompts, sampling with scores, and paired comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.atomic import atomic_write_text
from core.cli import parse_config
from evaluation.compare.figures import ComparisonRow, compare_all
from evaluation.compare.render import comparison_json
from evaluation.compare.tables import read_pairs
from pipeline.run import RunConfig
from pipeline.run import run as run_pipeline
from rewards.metrics import MODALITY_METRICS
from synthetic.make import MakeConfig, make

# First scenes of the captions; no shipped weights were trained on any of them.
TRAINING_SEED, VALIDATION_SEED, FRESH_SEED = 510_000, 1_003_000, 1_004_000
EVALUATION_RUN_SEED = 1_000_000  # run seed of all evaluations, used by no training
SHOWN = ("desync", *MODALITY_METRICS, "overall")


def make_prompts(folder: Path, count: int, first_seed: int, num_workers: int) -> Path:
    """Write Bounce clips with their captions, and return the prompts table."""
    make(MakeConfig(output=folder, num_clips=count, first_seed=first_seed, num_workers=num_workers))
    return folder / "prompts.parquet"


def run_stages(prompts: Path, model: str, folder: Path, stages: list[str], num_workers: int, **settings: Any) -> Path:
    """Run stages of `pipeline.run` without ground truth, with the verifiable rewards, and return the folder.

    Raises:
        SystemExit: if a stage has failed rows.
    """
    values = {"prompts": prompts, "model": model, "output_dir": folder, "num_actors": num_workers}
    values |= {"include_ground_truth": False, "rewards": "verifiable", **settings}
    arguments = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    check_status(run_pipeline(parse_config(RunConfig, ["--stages", *stages, *arguments])))
    return folder


def evaluate(prompts: Path, model: str, folder: Path, num_workers: int, **sampling: Any) -> Path:
    """Sample and score two clips per caption, with the same seeds for every model."""
    settings = {"num_candidates": 2, "seed": EVALUATION_RUN_SEED} | sampling
    return run_stages(prompts, model, folder, ["sample", "score"], num_workers, **settings)


def compare(baseline: Path, candidate: Path) -> dict[str, ComparisonRow]:
    """Compare two evaluations, write comparison.json beside the candidate's samples, and return the rows by name."""
    [comparison] = compare_all([read_pairs(baseline, candidate)], num_bootstrap=10_000, seed=0)
    atomic_write_text(candidate / "comparison" / "comparison.json", comparison_json([comparison], {}))
    return {row.name: row for row in comparison.rows}


def markdown_table(rows: list[tuple[str, dict[str, ComparisonRow]]], first: str) -> str:
    """Return a row per comparison: change of each figure with its 95 % interval, and the win rate."""
    lines = [f"| {first} | " + " | ".join([*SHOWN, "win rate"]) + " |", "|" + "---|" * (len(SHOWN) + 2)]
    for name, figures in rows:
        desync = figures["desync"]
        cells = [change(figures[column]) for column in SHOWN]
        cells[0] = f"{desync.baseline_mean:.3f} > {desync.candidate_mean:.3f} s, {cells[0]}"
        lines.append(f"| {name} | {' | '.join(cells)} | {figures['overall'].win_rate:.1%} |")
    return "\n".join(lines)


def change(row: ComparisonRow) -> str:
    """Return a difference with its interval."""
    return f"{row.difference:+.3f} ({row.difference_low:+.3f} .. {row.difference_high:+.3f})"


def check_status(status: int) -> None:
    """End the program with the status of a command that failed."""
    if status:
        raise SystemExit(status)
