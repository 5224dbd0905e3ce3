"""Evaluate a model's samples on a benchmark: samples and captions in, a table of all metrics out.

    python -m evaluation.run --samples runs/javisbench --benchmark JavisBench.csv --weights weights

Values of clips are kept in a cache by the files' contents, so an interrupted run goes on, and another metric or more
samples cost only what is missing. docs/evaluation.md describes the metrics and the files that are written.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from core.cli import StageSummary, config_to_dict, config_to_yaml, echo, package_versions, parse_config, save_config
from evaluation.judges.choose import choose_judges
from evaluation.judges.metrics import choose_metrics
from evaluation.run.benchmark import read_benchmark
from evaluation.run.config import EvaluateConfig
from evaluation.run.evaluate import Evaluation
from evaluation.run.output import write_outputs
from evaluation.run.samples import read_samples
from evaluation.run.text import remarks, results_text
from jobs.stage import exit_status, hold, stopped_status
from jobs.stops import StageStoppedError

ABOUT = "Measures a model's samples on a benchmark: a table of all metrics, with intervals, counts and categories."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 with more failures than max_failures, 2 on a mistake, or 130 after Ctrl-C."""
    config = parse_config(EvaluateConfig, argv, about=ABOUT)
    echo(config_to_yaml(config))
    try:
        if config.dry_run:
            echo(plan(config))
            return 0
        return exit_status(evaluate(config), config)
    except (ValueError, StageStoppedError, KeyboardInterrupt) as error:
        return stopped_status(error)


def evaluate(config: EvaluateConfig) -> StageSummary:
    """Compute the missing values of one model's samples, then write and print the results.

    Args:
        config: samples, benchmark, metrics, weights and workers.

    Returns:
        The summary of the stage; the figures are in the output folder.

    Raises:
        ValueError: a table, a folder of samples or a file of features is not what it should be.
        StageStoppedError: a network cannot be loaded, or the disk is full.
    """
    started = time.perf_counter()
    with hold(config.folder):
        evaluation = prepare(config)
        num_known = evaluation.measurement.num_known_samples
        evaluation.measurement.run(config.pool)
        results = evaluation.results(config.num_bootstrap, config.seed)
        write_outputs(config.folder, results, config_to_dict(config), config.title)
        save_config(config, config.folder / "config.yaml")
        summary = StageSummary(
            stage="evaluate",
            wanted=results.num_wanted,
            done=results.num_wanted - len(results.failed),
            skipped=num_known,
            failed=len(results.failed),
            seconds=time.perf_counter() - started,
            settings=config_to_dict(config),
            versions=package_versions("avdpo", "torch", "transformers", "ray"),
        )
        summary.write(config.folder)
    echo(results_text(results))
    echo(summary.line())
    echo(f"page: {config.folder / 'index.html'}")
    return summary


def plan(config: EvaluateConfig) -> str:
    """Return the plan that `--dry_run` prints."""
    evaluation = prepare(config)
    names = ", ".join(metric.name for metric in evaluation.metrics)
    lines = [f"evaluate: {len(evaluation.samples.samples)} samples of {len(evaluation.benchmark)} rows: {names}"]
    lines += remarks(evaluation.skipped, evaluation.samples.problems)
    left = f"{evaluation.measurement.num_left} of {evaluation.measurement.num_clips} clips left to look at"
    return "\n".join([*lines, f"evaluate: {left} (dry run: nothing written); output {config.folder}"])


def prepare(config: EvaluateConfig) -> Evaluation:
    """Read benchmark, samples and judges; compute nothing."""
    benchmark = read_benchmark(config.benchmark, config.group_by, config.limit)
    samples = read_samples(config.samples, benchmark)
    metrics = choose_metrics(config.metrics)
    chosen, skipped = choose_judges(metrics, config.weights, config.protocol)
    return Evaluation.prepare(
        benchmark=benchmark,
        samples=samples,
        metrics=metrics,
        chosen=chosen,
        skipped=skipped,
        settings=config,
    )


if __name__ == "__main__":
    sys.exit(main())
