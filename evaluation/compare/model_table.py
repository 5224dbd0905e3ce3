"""Table of one model's samples and scores, read from a run of the pipeline or of `evaluation.run` and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from core.lineage import METADATA_KEY, Lineage, parse_lineage
from core.score_origin import ScoreOrigin, origin_of
from rewards.metrics import HIGHER_IS_BETTER, METRIC_COLUMNS

SAMPLES_NAME = "samples.parquet"  # of evaluation.run
_NO_METRICS = ("seed", "duration_s", "generation_s")  # numeric columns of that table that are no metrics


class TableError(ValueError):
    """Error for a table that cannot be compared; the message names the file, the fault and the remedy."""


@dataclass(frozen=True)
class LeftOut:
    """A candidate that is left out of the comparison, and the reason."""

    candidate_id: str
    model: str
    reason: str


@dataclass(frozen=True, eq=False)
class ModelTable:
    """Usable samples of one model: one row per candidate_id (the index), sorted."""

    model: str  # name in messages and tables
    folder: Path
    rows: pd.DataFrame  # prompt_id, prompt, seed (None where unknown), duration_s, and one float column per metric
    higher_is_better: dict[str, bool]  # metric -> direction, in column order
    origins: dict[str, ScoreOrigin]  # metric -> the reward that computed it
    lineage: Lineage  # preference trainings of the model
    left_out: tuple[LeftOut, ...]
    num_ground_truth: int
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Part:
    """The table of one stage, and the path of its table of failures."""

    stage: str
    rows: pd.DataFrame
    failures: Path


def read_model(folder: Path, model: str) -> ModelTable:
    """Read the samples in a folder with samples.parquet (of `evaluation.run`), or with candidates/ and scores/.

    Ground-truth rows are counted and removed. Rows that are duplicated, failed, unscored or infinite are listed in
    `left_out`.

    Args:
        folder: output folder of a run.
        model: name of the model in messages and tables.

    Raises:
        TableError: if a table or one of its columns is missing, or a table cannot be read.
    """
    if (folder / SAMPLES_NAME).is_file():
        return _read_evaluated(folder, model)
    return _read_run(folder, model)


def _read_run(folder: Path, model: str) -> ModelTable:
    """Join DIR/candidates/candidates.parquet with DIR/scores/scores.parquet by candidate_id."""
    candidates_path = folder / "candidates" / "candidates.parquet"
    scores_path = folder / "scores" / "scores.parquet"
    needed = ("candidate_id", "prompt_id", "prompt", "is_ground_truth", "seed")
    candidates = _read_table(candidates_path, needed, "python -m pipeline.sample")
    scores = _read_table(scores_path, ("candidate_id",), "python -m pipeline.score")
    rows, truth = _without_ground_truth(_to_pandas(candidates))
    score_rows = _to_pandas(scores)
    parts = [
        _Part("sample", rows, candidates_path.with_name("failures.parquet")),
        _Part("score", score_rows[~score_rows["candidate_id"].isin(truth)], scores_path.with_name("failures.parquet")),
    ]
    lineage = _lineage(candidates.schema, candidates_path)
    return _model_table(folder, model, parts, truth, scores.schema, lineage)


def _read_evaluated(folder: Path, model: str) -> ModelTable:
    path = folder / SAMPLES_NAME
    table = _read_table(path, ("candidate_id", "prompt_id", "prompt"), "python -m evaluation.run")
    frame = _to_pandas(table)
    for name in ("seed", "is_ground_truth"):
        if name not in frame:
            frame[name] = pd.Series([None] * len(frame), dtype=object)
    rows, truth = _without_ground_truth(frame)
    part = _Part("evaluation", rows, path.with_name("failures.parquet"))
    return _model_table(folder, model, [part], truth, table.schema, _lineage(table.schema, path))


def _model_table(
    folder: Path, model: str, parts: list[_Part], truth: set[str], scores: pa.Schema, lineage: Lineage
) -> ModelTable:
    """Join the rows that every part has and none lists as failed.

    The first part gives the prompts, the last part the scores.
    """
    directions, unknown = metric_directions(scores)
    reasons = _failure_reasons(parts, list(directions), truth)
    first, last = (part.rows[~part.rows["candidate_id"].isin(list(reasons))] for part in (parts[0], parts[-1]))
    if "duration_s" not in first:
        first = first.assign(duration_s=np.nan)
    rows = first.set_index("candidate_id")[["prompt_id", "prompt", "seed", "duration_s"]]
    return ModelTable(
        model=model,
        folder=folder,
        rows=rows.join(last.set_index("candidate_id")[list(directions)], how="inner").sort_index(),
        higher_is_better=directions,
        origins={name: origin_of(scores, name) for name in directions},
        lineage=lineage,
        left_out=tuple(LeftOut(key, model, reason) for key, reason in sorted(reasons.items())),
        num_ground_truth=len(truth),
        notes=tuple(f"{model}: column {name!r} has no known direction and is not compared" for name in unknown),
    )


def _read_table(path: Path, columns: tuple[str, ...], command: str) -> pa.Table:
    if not path.is_file():
        folder = path.parent.parent
        raise TableError(
            f"{folder} has no {path.parent.name}/{path.name} (and no {SAMPLES_NAME} of `python -m evaluation.run`), "
            f"which the comparison reads. Make it with `{command}`, or give the folder of a finished run."
        )
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise TableError(
            f"{path} is not a readable parquet file ({error}). Delete it and run `{command}` again."
        ) from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise TableError(
            f"{path} has no column {', '.join(missing)}, needed to join the tables (it has: "
            f"{', '.join(table.column_names)}). Write it with `{command}`."
        )
    return table


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    # Seeds have 63 bits: in a float64 column, pandas' default for integers with nulls, different seeds could be equal.
    return table.to_pandas(integer_object_nulls=True)


def _without_ground_truth(rows: pd.DataFrame) -> tuple[pd.DataFrame, set[str]]:
    """Return the sampled rows, and the ids of the ground-truth rows."""
    is_truth = rows["is_ground_truth"].fillna(False).astype(bool)
    return rows[~is_truth], set(rows.loc[is_truth, "candidate_id"])


def _lineage(schema: pa.Schema, path: Path) -> Lineage:
    try:
        return parse_lineage((schema.metadata or {}).get(METADATA_KEY.encode()), path)
    except ValueError as error:
        raise TableError(str(error)) from error


def metric_directions(schema: pa.Schema) -> tuple[dict[str, bool], list[str]]:
    """Return the direction of every metric column of a table, and the float columns with unknown direction.

    Columns of third-party rewards give it in the parquet field metadata: `higher_is_better` = `true` or `false`.
    """
    directions, unknown = {}, []
    for field in schema:
        stated = (field.metadata or {}).get(b"higher_is_better")
        if stated in (b"true", b"false"):
            directions[field.name] = stated == b"true"
        elif field.name in HIGHER_IS_BETTER:
            directions[field.name] = HIGHER_IS_BETTER[field.name]
        elif pa.types.is_floating(field.type) and field.name not in _NO_METRICS:
            unknown.append(field.name)
    known = [name for name in METRIC_COLUMNS if name in directions]
    return {name: directions[name] for name in [*known, *sorted(set(directions) - set(known))]}, sorted(unknown)


def _failure_reasons(parts: list[_Part], metrics: list[str], truth: set[str]) -> dict[str, str]:
    """Return candidate_id -> reason why it cannot be compared; the first reason found is kept."""
    reasons: dict[str, str] = {}
    for part in parts:
        counts = part.rows["candidate_id"].value_counts()
        for key, count in counts[counts > 1].items():
            reasons.setdefault(str(key), f"duplicate: {count} rows in the {part.stage} table")
        if "error" in part.rows:
            failed = part.rows[part.rows["error"].notna()]
            for key, error in zip(failed["candidate_id"], failed["error"], strict=True):
                reasons.setdefault(key, f"failed in {part.stage}: {error}")
    for part in parts:
        present = {*part.rows["candidate_id"], *truth}
        for key, error in _read_failures(part.failures):
            if key not in present and not key.endswith("/gt"):
                reasons.setdefault(key, f"failed in {part.stage}: {error}")
    scores = parts[-1].rows
    infinite = scores[np.isinf(scores[metrics].to_numpy(dtype=np.float64)).any(axis=1)]
    for key in infinite["candidate_id"]:
        reasons.setdefault(key, "a score is infinite")
    sampled, scored = set(parts[0].rows["candidate_id"]), set(scores["candidate_id"])
    for key in sampled - scored:
        reasons.setdefault(key, "has no row in the score table")
    for key in scored - sampled:
        reasons.setdefault(key, "has scores but no row in the candidates table")
    return reasons


def _read_failures(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    table = pq.read_table(path)
    if "candidate_id" not in table.column_names:
        return []
    errors = table["error"].to_pylist() if "error" in table.column_names else [None] * len(table)
    return [
        (key, error or "no reason given") for key, error in zip(table["candidate_id"].to_pylist(), errors, strict=True)
    ]
