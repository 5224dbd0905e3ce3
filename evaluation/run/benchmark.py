"""Captions of a benchmark, its ground truth where it has any, and its categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from core.prompts import read_prompts
from evaluation.run.categories import Categories, read_categories


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Rows are numbered from 0 in the order of the table, as the release numbers its samples.

    Attributes:
        rows: prompt_id, prompt, audio_prompt (None where the table has none), video_path and audio_path of the ground
            truth (absolute; None where there is none).
    """

    path: Path
    rows: pd.DataFrame
    categories: Categories
    beyond: frozenset[str] = frozenset()  # prompt_ids of the table that a limit left out

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_in_table(self) -> int:
        return len(self.rows) + len(self.beyond)

    @cached_property
    def rows_with_media(self) -> np.ndarray:
        """The rows whose ground truth is on disk."""
        return np.flatnonzero([path is not None and Path(path).is_file() for path in self.rows["video_path"]])

    @property
    def rows_without_media(self) -> np.ndarray:
        """The rows that name a ground truth which is not there."""
        named = np.flatnonzero(self.rows["video_path"].notna())
        return np.setdiff1d(named, self.rows_with_media)


def read_benchmark(path: Path, group_by: Sequence[str] = (), limit: int | None = None) -> Benchmark:
    """A prompts table, such as JavisBench.csv; of its rows the first `limit`.

    Raises:
        ValueError: it cannot be read, or has no such column to group by.
    """
    if not path.is_file():
        raise ValueError(f"The benchmark {path} does not exist: give its .csv, .jsonl or .parquet file.")
    prompts = read_prompts(path)
    table = prompts.slice(0, limit).to_pandas()
    beyond = frozenset(prompts["prompt_id"].slice(len(table)).to_pylist())
    rows = pd.DataFrame({"prompt_id": table["prompt_id"], "prompt": table["prompt"]})
    rows["audio_prompt"] = _optional(table, "audio_prompt")
    for column in ("video_path", "audio_path"):
        cells = [None if cell is None else str(path.parent / cell) for cell in _optional(table, column)]
        rows[column] = pd.Series(cells, dtype=object)
    return Benchmark(path, rows, read_categories(table, group_by), beyond)


def _optional(table: pd.DataFrame, column: str) -> pd.Series:
    """Text, and None where there is none; of type object, as pandas' text has NaN in its place."""
    cells = table[column] if column in table.columns else [None] * len(table)
    return pd.Series([None if pd.isna(cell) else str(cell) for cell in cells], dtype=object)
