"""The tables of one or two sampled and scored models: read, checked, and joined by candidate_id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rewards.metrics import HIGHER_IS_BETTER, METRIC_COLUMNS

_CANDIDATE_COLUMNS = ("candidate_id", "prompt_id", "prompt", "is_ground_truth", "seed")
_DURATION_TOLERANCE_S = 0.05


class TableError(ValueError):
    """A table that cannot be compared: names the file, what is wrong with it, and what to do."""


@dataclass(frozen=True)
class LeftOut:
    """A candidate that takes no part in the comparison, and why."""

    candidate_id: str
    model: str  # "baseline" or "candidate"
    reason: str


@dataclass(frozen=True, eq=False)
class ModelTable:
    """The usable samples of one model: one row per candidate_id (the index), sorted."""

    model: str
    folder: Path
    rows: pd.DataFrame  # prompt_id, prompt, seed, duration_s, and one float column per metric
    higher_is_better: dict[str, bool]  # metric -> direction, in column order
    left_out: tuple[LeftOut, ...]
    num_ground_truth: int
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PairedScores:
    """Scores of two models on the same prompts and seeds; row i of both tables is the same candidate_id."""

    prompt_ids: np.ndarray  # (N,) str
    baseline: pd.DataFrame  # (N, K), indexed by candidate_id; NaN = undefined
    candidate: pd.DataFrame  # (N, K)
    higher_is_better: dict[str, bool]
    left_out: tuple[LeftOut, ...]
    num_ground_truth: int
    notes: tuple[str, ...]

    @property
    def num_pairs(self) -> int:
        return len(self.baseline)

    @property
    def num_left_out(self) -> int:
        """Number of candidate_ids with no pair (one that is missing on both sides counts once)."""
        return len({row.candidate_id for row in self.left_out})


def read_pairs(baseline: Path, candidate: Path) -> PairedScores:
    """Read both models' folders (each an output_dir of `pipeline.sample` + `pipeline.score`) and pair them.

    Raises:
        TableError: a table or column is missing, no candidate_id is common, or seeds or prompts of one id differ.
    """
    return pair_models(read_model(baseline, "baseline"), read_model(candidate, "candidate"))


def read_model(folder: Path, model: str) -> ModelTable:
    """Join DIR/candidates/candidates.parquet with DIR/scores/scores.parquet by candidate_id.

    Ground-truth rows are counted and set aside. Rows that are duplicated, failed, unscored or infinite are left out by
    name.
    """
    candidates_path = folder / "candidates" / "candidates.parquet"
    scores_path = folder / "scores" / "scores.parquet"
    candidates = _read_table(candidates_path, _CANDIDATE_COLUMNS, "python -m pipeline.sample", model)
    scores = _read_table(scores_path, ("candidate_id",), "python -m pipeline.score", model)
    directions, unknown = _metric_directions(scores_path)
    notes = tuple(f"{model}: column {name!r} has no known direction and is not compared" for name in unknown)

    is_ground_truth = candidates["is_ground_truth"].fillna(False).astype(bool)
    ground_truth_ids = set(candidates.loc[is_ground_truth, "candidate_id"])
    candidates = candidates[~is_ground_truth]
    scores = scores[~scores["candidate_id"].isin(ground_truth_ids)]

    reasons = _failure_reasons(folder, candidates, scores, list(directions), ground_truth_ids)
    usable = candidates[~candidates["candidate_id"].isin(list(reasons))].set_index("candidate_id")
    if "duration_s" not in usable:
        usable = usable.assign(duration_s=np.nan)
    usable_scores = scores[~scores["candidate_id"].isin(list(reasons))].set_index("candidate_id")
    rows = usable[["prompt_id", "prompt", "seed", "duration_s"]].join(usable_scores[list(directions)], how="inner")
    return ModelTable(
        model=model,
        folder=folder,
        rows=rows.sort_index(),
        higher_is_better=directions,
        left_out=tuple(LeftOut(key, model, reason) for key, reason in sorted(reasons.items())),
        num_ground_truth=len(ground_truth_ids),
        notes=notes,
    )


def pair_models(baseline: ModelTable, candidate: ModelTable) -> PairedScores:
    """Rows present in both models, in candidate_id order; what has no partner is left out by name."""
    common = baseline.rows.index.intersection(candidate.rows.index).sort_values()
    if common.empty:
        raise TableError(_no_common_message(baseline, candidate))
    _check_equal(baseline, candidate, common, "seed", "sample both models with the same run seed and --num_candidates")
    _check_equal(baseline, candidate, common, "prompt", "sample both models from the same prompts table")
    metrics = [name for name in baseline.higher_is_better if name in candidate.higher_is_better]
    notes = [
        *baseline.notes,
        *candidate.notes,
        *_column_notes(baseline, candidate),
        *_duration_notes(baseline, candidate),
    ]
    return PairedScores(
        prompt_ids=baseline.rows.loc[common, "prompt_id"].to_numpy(),
        baseline=baseline.rows.loc[common, metrics].astype(np.float64),
        candidate=candidate.rows.loc[common, metrics].astype(np.float64),
        higher_is_better={name: baseline.higher_is_better[name] for name in metrics},
        left_out=(
            *baseline.left_out,
            *candidate.left_out,
            *_unpaired(baseline, candidate),
            *_unpaired(candidate, baseline),
        ),
        num_ground_truth=baseline.num_ground_truth + candidate.num_ground_truth,
        notes=tuple(notes),
    )


def _read_table(path: Path, columns: tuple[str, ...], command: str, model: str) -> pd.DataFrame:
    if not path.is_file():
        raise TableError(
            f"--{model} {path.parent.parent} has no {path.parent.name}/{path.name}, which the comparison reads. "
            f"Make it with `{command}`, or give the output_dir of a finished run."
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
    # Seeds have 63 bits: a float64 column, pandas' default for integers with nulls, would make different ones equal.
    return table.to_pandas(integer_object_nulls=True)


def _metric_directions(path: Path) -> tuple[dict[str, bool], list[str]]:
    """Direction of every metric column of a score table, and the float columns whose direction is not known.

    Columns of third-party rewards state theirs in the parquet field metadata: `higher_is_better` = `true` or `false`.
    """
    directions, unknown = {}, []
    schema = pq.read_schema(path)
    for field in schema:
        stated = (field.metadata or {}).get(b"higher_is_better")
        if stated in (b"true", b"false"):
            directions[field.name] = stated == b"true"
        elif field.name in HIGHER_IS_BETTER:
            directions[field.name] = HIGHER_IS_BETTER[field.name]
        elif pa.types.is_floating(field.type):
            unknown.append(field.name)
    known = [name for name in METRIC_COLUMNS if name in directions]
    return {name: directions[name] for name in [*known, *sorted(set(directions) - set(known))]}, sorted(unknown)


def _failure_reasons(
    folder: Path, candidates: pd.DataFrame, scores: pd.DataFrame, metrics: list[str], ground_truth_ids: set[str]
) -> dict[str, str]:
    """candidate_id -> why it cannot be compared; the first reason found stands."""
    reasons: dict[str, str] = {}
    for stage, table in (("sample", candidates), ("score", scores)):
        counts = table["candidate_id"].value_counts()
        for key, count in counts[counts > 1].items():
            reasons.setdefault(str(key), f"duplicate: {count} rows in the {stage} table")
        if "error" in table:
            failed = table[table["error"].notna()]
            for key, error in zip(failed["candidate_id"], failed["error"], strict=True):
                reasons.setdefault(key, f"failed in {stage}: {error}")
    for stage, name, table in (("sample", "candidates", candidates), ("score", "scores", scores)):
        present = {*table["candidate_id"], *ground_truth_ids}
        for key, error in _read_failures(folder / name / "failures.parquet"):
            if key not in present and not key.endswith("/gt"):
                reasons.setdefault(key, f"failed in {stage}: {error}")
    infinite = scores[np.isinf(scores[metrics].to_numpy(dtype=np.float64)).any(axis=1)]
    for key in infinite["candidate_id"]:
        reasons.setdefault(key, "a score is infinite")
    for key in set(candidates["candidate_id"]) - set(scores["candidate_id"]):
        reasons.setdefault(key, "has no row in the score table")
    for key in set(scores["candidate_id"]) - set(candidates["candidate_id"]):
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


def _no_common_message(baseline: ModelTable, candidate: ModelTable) -> str:
    def describe(table: ModelTable) -> str:
        ids = ", ".join(map(repr, table.rows.index[:3])) or "none"
        return f"{table.folder} has {len(table.rows)} usable samples ({ids}, ...; {len(table.left_out)} left out)"

    reasons = "; ".join(f"{row.candidate_id}: {row.reason}" for row in (*baseline.left_out, *candidate.left_out)[:3])
    return (
        f"{describe(baseline)}; {describe(candidate)}. No candidate_id is usable in both, so nothing can be paired"
        f"{f' ({reasons})' if reasons else ''}. Sample and score both models on the same prompts table."
    )


def _check_equal(baseline: ModelTable, candidate: ModelTable, common: pd.Index, column: str, remedy: str) -> None:
    left, right = baseline.rows.loc[common, column], candidate.rows.loc[common, column]
    different = common[(left != right).to_numpy()]
    if not different.empty:
        examples = "; ".join(f"{key}: {left[key]!r} and {right[key]!r}" for key in different[:3])
        raise TableError(
            f"{len(different)} of {len(common)} candidates have another {column} in {baseline.folder} than in "
            f"{candidate.folder} ({examples}). A paired comparison needs the same {column} on both sides: {remedy}."
        )


def _unpaired(table: ModelTable, other: ModelTable) -> list[LeftOut]:
    """Usable rows of `table` that `other` lacks altogether (rows that failed there are named there)."""
    named = {row.candidate_id for row in other.left_out}
    missing = table.rows.index.difference(other.rows.index)
    return [LeftOut(key, other.model, "missing: the other model has it") for key in missing if key not in named]


def _column_notes(baseline: ModelTable, candidate: ModelTable) -> list[str]:
    notes = []
    for table, other in ((baseline, candidate), (candidate, baseline)):
        missing = [name for name in other.higher_is_better if name not in table.higher_is_better]
        if missing:
            notes.append(f"not compared, because {table.model} has no such score: {', '.join(missing)}")
    return notes


def _duration_notes(baseline: ModelTable, candidate: ModelTable) -> list[str]:
    """Desync of clips of different lengths is not comparable, so mixed lengths are pointed out."""
    durations = pd.concat([baseline.rows["duration_s"], candidate.rows["duration_s"]]).dropna().astype(np.float64)
    if durations.empty or durations.max() - durations.min() <= _DURATION_TOLERANCE_S:
        return []
    return [
        f"clip lengths differ ({durations.min():.2f} s to {durations.max():.2f} s): "
        "desync is not comparable between lengths"
    ]
