"""Evaluate a model's samples on a benchmark: samples and captions in, a table of all metrics out.

    python -m evaluation.run --samples runs/javisbench --benchmark JavisBench.csv --weights weights

Values of clips are kept in a cache by the files' contents, so an interrupted run goes on, and another metric or more
samples cost only what is missing.  The output folder holds results.json, results.csv, samples.parquet (a row per
sample, for pandas and `evaluation.compare`), problems.parquet and index.html.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.benchmark import read_benchmark
from evaluation.evaluate import Evaluation
from evaluation.extractors import choose_extractors
from evaluation.metrics import choose_metrics
from evaluation.output import write_outputs
from evaluation.run_text import results_text
from evaluation.samples import read_samples
from media.cli import StageSummary, config_to_dict, config_to_yaml, echo, package_versions, parse_config, save_config
from pipeline.stage import WorkerConfig, exit_status, hold, setting, stopped_status
from pipeline.stops import StageStoppedError
from rewards.base import Protocol


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(WorkerConfig):
    """Settings of `python -m evaluation.run`."""

    samples: Path = field(
        metadata={"help": "output_dir of pipeline.sample, or a folder with sample_0000.mp4, sample_0000.wav, ..."}
    )
    benchmark: Path = field(
        metadata={"help": "Table of captions: JavisBench.csv, JavisBench-mini.csv, or any prompts table."}
    )
    output: Path | None = field(default=None, metadata={"help": "Folder of the results; default <samples>/evaluation."})
    metrics: list[str] = field(
        default_factory=lambda: ["all"],
        metadata={"help": "Names of metrics, or groups: all, quality, text, av, sync; verifiable for Bounce."},
    )
    weights: str | None = field(
        default=None, metadata={"help": "Folder that model.fetch filled, or the preset 'tiny' (of the rewards)."}
    )
    protocol: Protocol = field(
        default="correct",
        metadata={"help": "How to measure: correctly, or as the release does, defects included (javisbench)."},
    )
    ground_truth_features: Path | None = field(
        default=None, metadata={"help": "Published features of the ground truth (.pt), used in place of its clips."}
    )
    cache: Path | None = field(
        default=None,
        metadata={"help": "Folder of what was computed per clip; runs may share it. Default <output>/cache."},
    )
    group_by: list[str] = field(
        default_factory=list,
        metadata={"help": "Columns of the benchmark to break results down by, besides JavisBench's five aspects."},
    )
    limit: int | None = field(default=None, metadata={"help": "Evaluate the first rows of the benchmark alone."})
    dtype: str = setting("float32", "Type of the networks' weights, e.g. bfloat16.")
    clip_batch_size: int = setting(8, "Clips that a network is given at once.")
    num_decoders: int = setting(2, "Threads per worker that decode the next clips while some are looked at.")
    num_bootstrap: int = setting(2000, "Resamples of the benchmark's rows for the 95 % intervals.")
    seed: int = setting(0, "Seed of the resampling.")
    title: str = setting("Evaluation", "Heading of the page.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("clip_batch_size", 1), ("num_decoders", 1), ("num_bootstrap", 100)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least {least}.")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}: give at least 1 row, or leave it out.")
        if self.estimate:
            raise ValueError("estimate is of sampling and scoring: here give limit, and multiply.")
        choose_metrics(self.metrics)

    @property
    def folder(self) -> Path:
        return self.samples / "evaluation" if self.output is None else self.output

    @property
    def cache_folder(self) -> Path:
        return self.folder / "cache" if self.cache is None else self.cache


def main(argv: Sequence[str] | None = None) -> int:
    """The command: exit status 0, 1 with more rows without a sample or value than max_failures, 2 on a mistake."""
    config = parse_config(EvaluateConfig, argv)
    echo(config_to_yaml(config))
    try:
        if config.dry_run:
            echo(plan(config))
            return 0
        return exit_status(evaluate(config), config)
    except (ValueError, StageStoppedError, KeyboardInterrupt) as error:
        return stopped_status(error)


def evaluate(config: EvaluateConfig) -> StageSummary:
    """Compute what is missing, then write and print the results.

    Raises:
        ValueError: a table, a folder of samples or a file of features is not what it should be.
        StageStoppedError: a network cannot be loaded, or the disk is full.
    """
    started = time.perf_counter()
    with hold(config.folder):
        evaluation = prepare(config)
        evaluation.extract(config.pool)
        results = evaluation.results(config.num_bootstrap, config.seed)
        write_outputs(config.folder, results, config_to_dict(config), config.title)
        save_config(config, config.folder / "config.yaml")
        summary = StageSummary(
            stage="evaluate",
            wanted=results.num_wanted,
            done=results.num_wanted - results.num_failed,
            skipped=0,
            failed=results.num_failed,
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
    """What a run would do."""
    evaluation = prepare(config)
    lines = [f"evaluate: {len(evaluation.samples.samples)} samples of {len(evaluation.benchmark)} rows"]
    lines += [f"  {problem.name}: {problem.reason}" for problem in evaluation.samples.problems[:10]]
    lines += [f"skipped: {one.metric} {one.reason}; {one.command}" for one in evaluation.skipped]
    lines.append(f"evaluate: {evaluation.extraction.num_left} clips left to look at (dry run: nothing written)")
    return "\n".join(lines)


def prepare(config: EvaluateConfig) -> Evaluation:
    """Benchmark, samples and extractors brought together; reads files, computes nothing."""
    benchmark = read_benchmark(config.benchmark, config.group_by, config.limit)
    samples = read_samples(config.samples, benchmark)
    metrics = choose_metrics(config.metrics)
    chosen, skipped = choose_extractors(metrics, config.weights, config.protocol)
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
