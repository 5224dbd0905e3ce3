"""Evaluate a model's samples on a benchmark: samples and captions in, a table of all metrics out.

    python -m evaluation.run --samples runs/javisbench --benchmark JavisBench.csv --weights weights

Values of clips are kept in a cache by the files' contents, so an interrupted run goes on, and another metric or more
samples cost only what is missing. docs/evaluation.md tells the metrics and the files that are written.
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
from evaluation.metrics import GROUP_TITLES, METRICS, choose_metrics
from evaluation.output import write_outputs
from evaluation.run_text import remarks, results_text
from evaluation.samples import read_samples
from media.cli import StageSummary, config_to_dict, config_to_yaml, echo, package_versions, parse_config, save_config
from pipeline.stage import WorkerConfig, exit_status, hold, setting, stopped_status
from pipeline.stops import StageStoppedError
from rewards.base import Protocol

ABOUT = "Measures a model's samples on a benchmark: a table of all metrics, with intervals, counts and categories."


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(WorkerConfig):
    """Settings of `python -m evaluation.run`."""

    samples: Path = field(
        metadata={
            "help": "output_dir of pipeline.sample; or a folder with sample_0000.mp4, sample_0000.wav, ..., whose "
            "numbers are rows of the benchmark, from 0."
        }
    )
    benchmark: Path = field(
        metadata={
            "help": "Table of captions, and of ground-truth clips where it has any: JavisBench.csv, "
            "JavisBench-mini.csv, or any prompts table (.csv, .jsonl, .parquet)."
        }
    )
    output: Path | None = field(default=None, metadata={"help": "Folder of the results; default <samples>/evaluation."})
    metrics: list[str] = field(
        default_factory=lambda: ["all"],
        metadata={
            "help": f"Names or groups of metrics. Groups: all, {', '.join(GROUP_TITLES)} (of Bounce, not in all). "
            f"Names: {', '.join(metric.name for metric in METRICS)}."
        },
    )
    weights: str | None = field(
        default=None,
        metadata={
            "help": "Folder that model.fetch filled, or 'tiny' for the presets of the rewards. A metric whose weights "
            "are not there is skipped and named."
        },
    )
    protocol: Protocol = field(
        default="correct",
        metadata={
            "help": "correct, or javisbench: as the release measures, defects included, to compare with its paper."
        },
    )
    ground_truth_features: Path | None = field(
        default=None,
        metadata={
            "help": "Features of the ground truth in place of its clips: the release's .pt file (protocol javisbench), "
            "or an .npz file with `video` (of I3D) and `audio` (of AudioCLIP), a row per clip."
        },
    )
    cache: Path | None = field(
        default=None,
        metadata={"help": "Folder of what was computed per clip; runs may share it. Default <output>/cache."},
    )
    group_by: list[str] = field(
        default_factory=list,
        metadata={"help": "Columns of the benchmark to break results down by, besides the published cat0_ind, ..."},
    )
    limit: int | None = setting(None, "Evaluate the first so many rows of the benchmark alone.")
    batch_size: int = setting(1, "Most batches of clips that a worker is given at a time.")
    max_tries: int = setting(3, "How often a batch of clips that kills its worker is tried, before each clip alone is.")
    max_failures: int = setting(
        0,
        "Samples, captions and ground-truth clips that fail or are missing with which the command still exits with 0.",
    )
    estimate: bool = setting(False, "Not of this stage: give limit, and multiply.")
    dry_run: bool = setting(False, "Say what is missing, what is skipped and what is left to compute; write nothing.")
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
    """The command: exit status 0, 1 with more failures than max_failures, 2 on a mistake, 130 after Ctrl-C."""
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
    """Compute what is missing, then write and print the results.

    Raises:
        ValueError: a table, a folder of samples or a file of features is not what it should be.
        StageStoppedError: a network cannot be loaded, or the disk is full.
    """
    started = time.perf_counter()
    with hold(config.folder):
        evaluation = prepare(config)
        num_known = evaluation.extraction.num_known_samples
        evaluation.extraction.run(config.pool)
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
    """What a run would do."""
    evaluation = prepare(config)
    names = ", ".join(metric.name for metric in evaluation.metrics)
    lines = [f"evaluate: {len(evaluation.samples.samples)} samples of {len(evaluation.benchmark)} rows: {names}"]
    lines += remarks(evaluation.skipped, evaluation.samples.problems)
    left = f"{evaluation.extraction.num_left} of {evaluation.extraction.num_clips} clips left to look at"
    return "\n".join([*lines, f"evaluate: {left} (dry run: nothing written); output {config.folder}"])


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
