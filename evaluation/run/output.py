"""The files of an evaluation: results as JSON, CSV and Markdown, rows of samples and failures as Parquet, the page."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.atomic import atomic_path, atomic_write_text
from core.lineage import METADATA_KEY
from evaluation.judges.choose import network_name
from evaluation.run.evaluate import Results
from evaluation.run.page import results_page
from evaluation.run.results import MetricResult
from evaluation.run.text import results_csv, results_markdown
from rewards.registry import get_judge

# The columns that `evaluation.compare` reads, and the kind of each problem.
_FAILURES = pa.schema({"candidate_id": pa.string(), "kind": pa.string(), "error": pa.string()})


def write_outputs(folder: Path, results: Results, settings: dict[str, Any], title: str) -> None:
    """Write all of it, each file atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / "results.json", results_json(results, settings))
    atomic_write_text(folder / "results.csv", results_csv(results))
    atomic_write_text(folder / "results.md", results_markdown(results, title))
    _write_table(samples_table(results), folder / "samples.parquet")
    _write_table(_failures_table(results), folder / "failures.parquet")
    atomic_write_text(folder / "index.html", results_page(results, title))


def results_json(results: Results, settings: dict[str, Any]) -> str:
    """Return all results but those of single samples, as JSON."""
    seconds, count = results.generation_s
    kinds = [one.kind for one in results.problems]
    document = {
        "settings": settings,
        "benchmark": str(results.benchmark.path),
        "num_rows": len(results.benchmark),
        "num_samples": len(results.samples.samples),
        "num_failed": len(results.failed),
        "protocol": results.protocol,
        "metrics": {one.metric.name: _metric(one, results) for one in results.metrics},
        "extractors": {  # the key that earlier versions wrote, for those who read the file
            name: {"version": one.version, "weights": one.weights, "path": one.path}
            for name, one in results.chosen.items()
        },
        "skipped": [asdict(one) for one in results.skipped],
        "problems": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "generation": {"seconds_per_clip": seconds, "num_clips": count},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def samples_table(results: Results) -> pa.Table:
    """Return a row per sample and a column per score, whose metadata holds the direction and the reward."""
    samples, rows = results.samples.samples, results.benchmark.rows
    numbers = [sample.row for sample in samples]
    columns: dict[str, pa.Array] = {
        "candidate_id": pa.array([sample.candidate_id for sample in samples], pa.string()),
        "prompt_id": pa.array(rows["prompt_id"].iloc[numbers], pa.string()),
        "prompt": pa.array(rows["prompt"].iloc[numbers], pa.string()),
        "row": pa.array(numbers, pa.int64()),
        "video_path": pa.array([sample.video_path for sample in samples], pa.string()),
        "audio_path": pa.array([sample.audio_path for sample in samples], pa.string()),
        "latents_path": pa.array([sample.latents_path for sample in samples], pa.string()),
        "seed": pa.array([sample.seed for sample in samples], pa.int64()),
        "duration_s": pa.array([sample.duration_s for sample in samples], pa.float64()),
        "generation_s": pa.array([sample.generation_s for sample in samples], pa.float64()),
    }
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    metrics = {one.metric.name: one.metric for one in results.metrics}
    for name, values in results.scores.items():
        columns[name] = pa.array(values.astype("float64"), from_pandas=True)  # NaN is null
        metadata = {
            "higher_is_better": str(metrics[name].higher_is_better).lower(),
            "reward": network_name(metrics[name].judge),
            "column": metrics[name].output,
        }
        fields.append(pa.field(name, pa.float64(), metadata=metadata))
    return pa.table(columns, schema=pa.schema(fields, metadata=_samples_metadata(results)))


def _samples_metadata(results: Results) -> dict[str, str]:
    """Return the rewards that made the scores, as in a scores table, and the trainings of the sampled model."""
    made_by = {
        network_name(name): {
            "version": get_judge(network_name(name)).version_under(results.protocol),
            "weights": one.weights,
            "path": one.path,
        }
        for name, one in results.chosen.items()
    }
    lineage = results.samples.metadata.get(METADATA_KEY)
    metadata = {"avdpo.rewards": json.dumps(made_by), "avdpo.protocol": results.protocol}
    return metadata | ({METADATA_KEY: lineage} if lineage else {})


def _failures_table(results: Results) -> pa.Table:
    rows = [{"candidate_id": one.name, "kind": one.kind, "error": one.reason} for one in results.problems]
    return pa.Table.from_pylist(rows, _FAILURES)


def _metric(one: MetricResult, results: Results) -> dict[str, Any]:
    metric = asdict(one.metric)
    metric["extractor"] = metric.pop("judge")  # the key that earlier versions wrote
    return metric | {
        "training": results.mark(one.metric).kind,
        "overall": asdict(one.overall),
        "categories": {
            aspect: {name: asdict(figure) for name, figure in figures.items()}
            for aspect, figures in one.categories.items()
        },
    }


def _write_table(table: pa.Table, path: Path) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
