"""The scores of a run's candidates for an audit: candidates and scores joined, failed scores as NaN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from core.schema import CANDIDATES, SCORES, read_table
from evaluation.audit.columns import RewardColumn, reward_columns


def read_scores(run_dir: Path, names: Sequence[str]) -> tuple[pd.DataFrame, list[RewardColumn], list[str]]:
    """Return the scores of a run as `audit` takes them, its reward columns, and notes.

    A candidate without a row of scores has failed in all of them. Candidates that could not be sampled are left out.

    Args:
        run_dir: output_dir of pipeline.run.
        names: of the columns to audit; all with a known direction by default.

    Raises:
        ValueError: a table is missing or damaged, or lacks a column.
    """
    candidates_path, scores_path = run_dir / "candidates" / "candidates.parquet", run_dir / "scores" / "scores.parquet"
    candidates = read_table(candidates_path, CANDIDATES, "python -m pipeline.sample")
    scores = read_table(scores_path, SCORES, "python -m pipeline.score")
    columns = reward_columns(scores.schema, names)
    if not columns:
        raise ValueError(f"{scores_path} has no score with a known direction. Make it with `python -m pipeline.score`.")
    kept = _frame(candidates, ["candidate_id", "prompt_id", "is_ground_truth", "error"])
    failed = kept["error"].notna()
    known = _frame(scores, ["candidate_id", *(column.name for column in columns)])
    joined = kept[~failed].drop(columns="error").merge(known, on="candidate_id", how="left")
    notes = [f"{int(failed.sum())} candidates could not be sampled and are left out"] * bool(failed.any())
    unknown = [column.name for column in columns if column.sees_prompt is None]
    if unknown:
        notes.append(f"whether {', '.join(unknown)} see the prompt is not recorded")
    return joined, columns, notes


def _frame(table: pa.Table, columns: Sequence[str]) -> pd.DataFrame:
    return table.select(columns).to_pandas(ignore_metadata=True)
