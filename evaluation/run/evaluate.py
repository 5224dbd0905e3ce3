"""One evaluation: samples, ground truth and judges brought together, and the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evaluation.judges.choose import Chosen, Skipped, network_name
from evaluation.judges.metrics import Metric
from evaluation.run.benchmark import Benchmark
from evaluation.run.ground_truth import read_features
from evaluation.run.measure import Clip, Errors, Measurement, MeasureSettings, Wanted
from evaluation.run.results import Measured, MetricResult, median_generation_s, metric_results, undefined_rows
from evaluation.run.samples import Problem, Samples
from evaluation.statistics.training_marks import TrainingMark, mark
from rewards.base import Protocol

if TYPE_CHECKING:
    from evaluation.run.config import EvaluateConfig

NO_GROUND_TRUTH = (
    "compares with ground truth: put its clips where the benchmark's column video_path says, or give "
    "--ground_truth_features"
)


@dataclass(frozen=True, eq=False)
class Results:
    """Results of an evaluation, from which tables, pages and comparisons are made.

    Attributes:
        scores: metric -> (N,) of the samples, NaN where undefined; not of distances.
        chosen: the judges that made them, by name.
        problems: captions without a sample, samples that take no part, and values that could not be computed.
        generation_s: median seconds per clip, and how many clips it is known of.
    """

    benchmark: Benchmark
    samples: Samples
    protocol: Protocol
    metrics: list[MetricResult]
    scores: dict[str, np.ndarray]
    skipped: list[Skipped]
    chosen: Mapping[str, Chosen]
    problems: list[Problem]
    generation_s: tuple[float | None, int]

    @property
    def failed(self) -> set[str]:
        """Names of samples, captions and ground truth that failed."""
        return {problem.name for problem in self.problems if problem.is_failure}

    @property
    def num_wanted(self) -> int:
        return len(self.failed | {sample.candidate_id for sample in self.samples.samples})

    def mark(self, metric: Metric) -> TrainingMark:
        """Return the role of a metric in the model's training, as recorded with the samples."""
        return mark(metric.output, network_name(metric.judge), {"model": self.samples.lineage})


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The plan of an evaluation. Made by `prepare`, which reads files and computes nothing."""

    benchmark: Benchmark
    samples: Samples
    metrics: list[Metric]  # those that can be computed
    skipped: list[Skipped]
    chosen: Mapping[str, Chosen]  # the judges of the metrics
    real_rows: np.ndarray  # the rows whose ground-truth clips are measured
    features: Mapping[str, np.ndarray]  # published ones: judge -> (M, width)
    measurement: Measurement
    protocol: Protocol

    @classmethod
    def prepare(
        cls,
        *,
        benchmark: Benchmark,
        samples: Samples,
        metrics: Sequence[Metric],
        chosen: Mapping[str, Chosen],
        skipped: Sequence[Skipped],
        settings: EvaluateConfig,
    ) -> Evaluation:
        """Raises ValueError where the file of features does not fit, or no metric can be computed."""
        features = _features(settings, metrics, chosen)
        real_rows = benchmark.rows_with_media
        usable, without = [], list(skipped)
        for metric in metrics:
            if metric.judge not in chosen:
                continue
            if metric.distance and metric.judge not in features and not len(real_rows):
                without.append(Skipped(metric.name, NO_GROUND_TRUTH, None))
            else:
                usable.append(metric)
        if not usable:
            reasons = "; ".join(f"{one.metric} {one.advice}" for one in without)
            raise ValueError(f"No metric can be computed here: {reasons}")
        names = {metric.judge: chosen[metric.judge] for metric in usable}
        compared = list(dict.fromkeys(one.judge for one in usable if one.distance and one.judge not in features))
        wanted = [
            Wanted(_sample_clips(samples, benchmark), list(names)),
            Wanted(_real_clips(benchmark, real_rows) if compared else [], compared),
        ]
        measurement = Measurement(names, wanted, _measure_settings(settings))
        return cls(benchmark, samples, usable, without, names, real_rows, features, measurement, settings.protocol)

    def results(self, num_bootstrap: int, seed: int) -> Results:
        """Return the figures of the values in the stores."""
        measured = {metric.name: (metric, self._measured(metric)) for metric in self.metrics}
        errors = self.measurement.errors()
        rows = np.array([sample.row for sample in self.samples.samples])
        figures = metric_results(
            measured, rows, self.benchmark.categories, protocol=self.protocol, num_bootstrap=num_bootstrap, seed=seed
        )
        return Results(
            benchmark=self.benchmark,
            samples=self.samples,
            protocol=self.protocol,
            metrics=figures,
            scores={name: one.values for name, (metric, one) in measured.items() if metric.distance is None},
            skipped=self.skipped,
            chosen=self.chosen,
            problems=[
                *self.samples.problems,
                *_failed(errors),
                *self._undefined({name: one.values for name, (_, one) in measured.items()}, errors),
                *self._unfetched(),
            ],
            generation_s=median_generation_s([sample.generation_s for sample in self.samples.samples]),
        )

    def _undefined(self, values: Mapping[str, np.ndarray], errors: Errors) -> list[Problem]:
        """Return a problem per sample that has no value of some metrics although nothing failed."""
        judges = {metric.name: metric.judge for metric in self.metrics}
        names: dict[str, list[str]] = {}
        for metric, column in values.items():
            for number in undefined_rows(column):
                sample = self.samples.samples[number].candidate_id
                if (judges[metric], sample) not in errors:
                    names.setdefault(sample, []).append(metric)
        return [
            Problem(sample, "undefined", f"has no {', '.join(metrics)}: has it a sound?")
            for sample, metrics in names.items()
        ]

    def _unfetched(self) -> list[Problem]:
        """Return a problem per missing ground-truth clip that distances would compare with."""
        if not any(one.distance and one.judge not in self.features for one in self.metrics):
            return []
        table = self.benchmark.rows
        return [
            Problem(f"{table['prompt_id'][row]}/gt", "unfetched", f"there is no {table['video_path'][row]}")
            for row in self.benchmark.rows_without_media.tolist()
        ]

    def _measured(self, metric: Metric) -> Measured:
        store, keys = self.measurement.stores[metric.judge], self.measurement.keys
        values = store.stack(metric.output, keys[0][metric.judge])
        if metric.distance is None:
            return Measured(values)
        if metric.judge in self.features:
            real = self.features[metric.judge]
            # The published file has a row per row of its benchmark; with any other number the rows are not known.
            if len(real) != self.benchmark.num_in_table:
                return Measured(values, real, None)
            return Measured(values, real[: len(self.benchmark)], np.arange(len(self.benchmark)))
        return Measured(values, store.stack(metric.output, keys[1][metric.judge]), self.real_rows)


def _failed(errors: Errors) -> list[Problem]:
    """Return a problem per clip, with the reasons of all judges that failed on it."""
    reasons: dict[str, dict[str, None]] = {}
    for (_, clip), message in errors.items():
        reasons.setdefault(clip, {})[message] = None
    return [Problem(clip, "failed", "; ".join(messages)) for clip, messages in reasons.items()]


def _features(
    settings: EvaluateConfig, metrics: Sequence[Metric], chosen: Mapping[str, Chosen]
) -> dict[str, np.ndarray]:
    if settings.ground_truth_features is None:
        return {}
    if settings.ground_truth_features.suffix != ".npz" and settings.protocol != "javisbench":
        raise ValueError(
            f"{settings.ground_truth_features} was made as the release measures, and protocol is "
            f"{settings.protocol!r}: features of the two do not compare. Give --protocol javisbench, or the "
            "ground-truth clips."
        )
    widths: dict[str, int] = {}
    for metric in metrics:
        width = chosen[metric.judge].judge.outputs[metric.output] if metric.judge in chosen else None
        if metric.distance and width is not None:
            widths[metric.judge] = width
    return read_features(settings.ground_truth_features, widths)


def _measure_settings(settings: EvaluateConfig) -> MeasureSettings:
    return MeasureSettings(
        cache=settings.cache_folder,
        protocol=settings.protocol,
        dtype=settings.dtype,
        device=settings.worker_settings["device"],
        num_threads=settings.worker_settings["num_threads"],
        num_decoders=settings.num_decoders,
        clip_batch_size=settings.clip_batch_size,
    )


def _sample_clips(samples: Samples, benchmark: Benchmark) -> list[Clip]:
    return [
        _clip(benchmark, sample.row, sample.candidate_id, sample.video_path, sample.audio_path)
        for sample in samples.samples
    ]


def _real_clips(benchmark: Benchmark, rows: np.ndarray) -> list[Clip]:
    table = benchmark.rows
    return [
        _clip(benchmark, row, f"{table['prompt_id'][row]}/gt", table["video_path"][row], table["audio_path"][row])
        for row in rows.tolist()
    ]


def _clip(benchmark: Benchmark, row: int, name: str, video_path: str, audio_path: str | None) -> Clip:
    table = benchmark.rows
    return Clip(name, video_path, audio_path, table["prompt_id"][row], table["prompt"][row], table["audio_prompt"][row])
