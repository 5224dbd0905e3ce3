"""The files of an evaluation: results as JSON and CSV, a row per sample and per problem as Parquet, and the page."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.evaluate import Results
from evaluation.page import results_page
from evaluation.results import MetricResult
from evaluation.run_text import results_csv
from media.atomic import atomic_path, atomic_write_text

LINEAGE_KEY = "avdpo.lineage"


def write_outputs(folder: Path, results: Results, settings: dict[str, Any], title: str) -> None:
    """Write all of it, each file atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / "results.json", results_json(results, settings))
    atomic_write_text(folder / "results.csv", results_csv(results))
    _write_table(samples_table(results), folder / "samples.parquet")
    _write_table(
        pa.Table.from_pylist([asdict(one) for one in results.problems], _PROBLEMS), folder / "problems.parquet"
    )
    atomic_write_text(folder / "index.html", results_page(results, title))


_PROBLEMS = pa.schema({"name": pa.string(), "kind": pa.string(), "reason": pa.string()})


def results_json(results: Results, settings: dict[str, Any]) -> str:
    """Everything but the single samples."""
    seconds, count = results.generation_s
    document = {
        "settings": settings,
        "benchmark": str(results.benchmark.path),
        "num_rows": len(results.benchmark),
        "num_samples": len(results.samples.samples),
        "protocol": results.protocol,
        "metrics": {one.metric.name: _metric(one) for one in results.metrics},
        "skipped": [asdict(one) for one in results.skipped],
        "problems": {
            kind: sum(one.kind == kind for one in results.problems)
            for kind in sorted({one.kind for one in results.problems})
        },
        "generation": {"seconds_per_clip": seconds, "num_clips": count},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def samples_table(results: Results) -> pa.Table:
    """A row per sample, with a column per score, which says in its metadata whether higher is better."""
    samples, rows = results.samples.samples, results.benchmark.rows
    numbers = [sample.row for sample in samples]
    columns: dict[str, pa.Array] = {
        "candidate_id": pa.array([sample.candidate_id for sample in samples], pa.string()),
        "prompt_id": pa.array(rows["prompt_id"].iloc[numbers], pa.string()),
        "prompt": pa.array(rows["prompt"].iloc[numbers], pa.string()),
        "row": pa.array(numbers, pa.int64()),
        "video_path": pa.array([sample.video_path for sample in samples], pa.string()),
        "seed": pa.array([sample.seed for sample in samples], pa.int64()),
        "duration_s": pa.array([sample.duration_s for sample in samples], pa.float64()),
        "generation_s": pa.array([sample.generation_s for sample in samples], pa.float64()),
    }
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    directions = {one.metric.name: one.metric.higher_is_better for one in results.metrics}
    for name, values in results.scores.items():
        columns[name] = pa.array(values.astype("float64"), pa.float64(), from_pandas=True)
        fields.append(pa.field(name, pa.float64(), metadata={"higher_is_better": str(directions[name]).lower()}))
    lineage = results.samples.metadata.get(LINEAGE_KEY)
    metadata = {"avdpo.protocol": results.protocol} | ({LINEAGE_KEY: lineage} if lineage else {})
    return pa.table(columns, schema=pa.schema(fields, metadata=metadata))


def _metric(one: MetricResult) -> dict[str, Any]:
    metric = asdict(one.metric)
    return metric | {
        "overall": asdict(one.overall),
        "categories": {
            aspect: {name: asdict(figure) for name, figure in figures.items()}
            for aspect, figures in one.categories.items()
        },
    }


def _write_table(table: pa.Table, path: Path) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
