"""Rank scored candidates into pairs of winner and loser: candidates and scores tables in, a Hugging Face dataset out.

python -m pipeline.rank --output_dir runs/first --strategy modality_micro --ground_truth any

pairs/ holds, beside the dataset: ranking.json (settings, yield, win rates, agreement of metrics, distributions,
statistics), the same as text in ranking.txt, plots/, and attrition.parquet (why each prompt without a pair has none).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.atomic import atomic_folder, remove_temporary_folders
from core.cli import StageSummary, config_to_dict, config_to_yaml, echo, package_versions, parse_config, save_config
from core.lineage import LINEAGE_KEY
from core.schema import CANDIDATES, SCORES, read_table
from jobs.stage import hold, stopped_status
from jobs.stops import StageStoppedError
from pipeline.rank.config import RankConfig
from pipeline.rank.lineage import ranking_lineage
from pipeline.rank.pairing import RankResult, rank_pairs
from pipeline.rank.pairs_folder import REPORT_NAME, STATE_NAME, is_dataset, read_report
from pipeline.rank.pairs_table import write_dataset
from pipeline.rank.plots import draw_plots
from pipeline.rank.scores import read_statistics
from pipeline.rank.text import describe, ground_truth_warning, yield_line

DURATION_TOLERANCE_S = 0.05


def rank(config: RankConfig) -> StageSummary:
    """Run the stage: write pairs/ with the dataset, its report and plots, as a whole or not at all.

    Nothing is done if pairs/ was made from the same tables with the same settings.

    Raises:
        ValueError: a table is missing or damaged or lacks a metric, or another run is ranking into the folder.
        NoSpaceError: the disk is full.
    """
    with hold(config.folder):
        return _rank(config)


def _rank(config: RankConfig) -> StageSummary:
    started = time.perf_counter()
    inputs = _inputs(config)
    earlier = _finished(config, inputs)
    if earlier is None:
        result, metrics = _rank_tables(config)
        report = result.report
    else:
        report = earlier
    num_prompts = report["num_prompts"]
    summary = StageSummary(
        stage="rank",
        wanted=num_prompts,
        done=num_prompts,
        skipped=num_prompts if earlier else 0,
        failed=0,
        seconds=time.perf_counter() - started,
        settings=config_to_dict(config),
        versions=package_versions("avdpo", "datasets"),
    )
    if earlier is None:
        _write(config, result, metrics, report | {"inputs": inputs}, summary)
    echo(summary.line())
    echo(yield_line(report))
    if warning := ground_truth_warning(report):
        echo(f"rank: warning: {warning}")
    return summary


def plan(config: RankConfig) -> str:
    """Describe in one line what a run would do."""
    state = "made from these tables already" if _finished(config, _inputs(config)) else "to be made"
    return f"rank: pairs {state} (dry run: nothing written); output {config.folder}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 2 if the input is wrong or the disk is full, or 130 after Ctrl-C."""
    config = parse_config(RankConfig, argv)
    echo(config_to_yaml(config))
    try:
        if config.dry_run:
            echo(plan(config))
        else:
            rank(config)
    except (ValueError, StageStoppedError, KeyboardInterrupt) as error:
        return stopped_status(error)
    return 0


def _paths(config: RankConfig) -> tuple[Path, Path]:
    return config.output_dir / "candidates" / "candidates.parquet", config.output_dir / "scores" / "scores.parquet"


def _inputs(config: RankConfig) -> dict[str, Any]:
    """Return the inputs that decide the pairs: the settings, and digests of the files that are read."""
    inputs: dict[str, Any] = {
        "strategy": config.strategy,
        "ground_truth": config.ground_truth,
        "rules": config.to_dict(),
    }
    for path, command in zip(_paths(config), ("sample", "score"), strict=True):
        if not path.is_file():
            raise ValueError(
                f"{path} does not exist, but ranking reads it. Make it with `python -m pipeline.{command}`."
            )
        inputs[path.stem] = _digest(path)
    if config.statistics is not None:
        read_statistics(config.statistics)  # raises if the file is not valid
        inputs["statistics"] = _digest(config.statistics)
    return inputs


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:24]


def _finished(config: RankConfig, inputs: dict[str, str]) -> dict[str, Any] | None:
    """Return the report of an earlier run on the same inputs, or None."""
    report = read_report(config.folder) if is_dataset(config.folder) else {}
    return report if report.get("inputs") == inputs and LINEAGE_KEY in report else None


def _rank_tables(config: RankConfig) -> tuple[RankResult, list[str]]:
    """Rank the run's tables. Returns the result, with paths relative to pairs/, and the metrics of the scores table."""
    candidates_path, scores_path = _paths(config)
    candidates = read_table(candidates_path, CANDIDATES, "python -m pipeline.sample").select(CANDIDATES.names)
    scores = read_table(scores_path, SCORES, "python -m pipeline.score").drop_columns(["error", "reasons"])
    _warn_of_mixed_durations(candidates)
    metrics = [field.name for field in scores.schema if pa.types.is_floating(field.type)]
    statistics = None if config.statistics is None else read_statistics(config.statistics)
    result = rank_pairs(
        _joined(candidates, scores),
        config.strategy,
        config.ground_truth,
        metrics,
        rules=config,
        statistics=statistics,
    )
    moved = {
        name: "../candidates/" + result.pairs[name]
        for name in (f"{side}_{kind}_path" for side in ("chosen", "rejected") for kind in ("video", "audio", "latents"))
    }
    lineage = ranking_lineage(scores.schema, config.strategy, config.winner_gates)
    report = result.report | {LINEAGE_KEY: lineage.to_dict()}
    return dataclasses.replace(result, pairs=result.pairs.assign(**moved), report=report), metrics


def _joined(candidates: pa.Table, scores: pa.Table) -> pa.Table:
    """Join candidates with their scores by candidate_id; missing scores are null."""
    ids = scores["candidate_id"]
    if not ids.equals(candidates["candidate_id"]):  # pipeline.score writes the candidates' order
        scores = scores.take(pc.index_in(candidates["candidate_id"], value_set=ids.combine_chunks()))
    for column in scores.schema.names[1:]:
        candidates = candidates.append_column(scores.schema.field(column), scores[column])
    return candidates


def _warn_of_mixed_durations(candidates: pa.Table) -> None:
    """Warn if clips differ in length, because desync is then not comparable."""
    durations = pc.min_max(candidates["duration_s"]).as_py()
    if durations["min"] is not None and durations["max"] - durations["min"] > DURATION_TOLERANCE_S:
        echo(
            f"rank: warning: clips last from {durations['min']:.2f} to {durations['max']:.2f} s, and desync is not "
            "comparable between lengths. Sample all prompts with one num_frames."
        )


def _write(
    config: RankConfig, result: RankResult, metrics: list[str], report: dict[str, Any], summary: StageSummary
) -> None:
    remove_temporary_folders(config.folder)
    with atomic_folder(config.folder, last=STATE_NAME) as temporary:
        write_dataset(result.pairs, metrics, temporary, name=config.folder)
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (temporary / REPORT_NAME).write_text(text, encoding="utf-8")
        (temporary / "ranking.txt").write_text(describe(report), encoding="utf-8")
        draw_plots(report, temporary / "plots")
        pq.write_table(pa.Table.from_pandas(result.attrition, preserve_index=False), temporary / "attrition.parquet")
        save_config(config, temporary / "config.yaml")
        summary.write(temporary)


if __name__ == "__main__":
    sys.exit(main())
