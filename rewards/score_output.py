"""Scores as a table for a person, and as a CSV, Parquet or JSON file."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.atomic import atomic_path, atomic_write_text
from core.text_table import table_lines

if TYPE_CHECKING:
    from rewards.base import Protocol
    from rewards.decode import ClipFile
    from rewards.suite import RewardSuite, ScoreRow

OUTPUT_SUFFIXES = (".csv", ".parquet", ".json")
_ARROWS = {True: "\u2191", False: "\u2193"}
_GAP = 2  # columns between two cells of a text table


def scores_text(rows: Sequence[ScoreRow], suite: RewardSuite, width: int) -> str:
    """One line per clip and one column per metric, in as many blocks as fit into `width` characters."""
    labels = _labels([row.candidate_id for row in rows])
    best = {column: _best(rows, column, suite.higher_is_better[column]) for column in suite.columns}
    margin = max(map(len, labels), default=0)
    cells = {column: _cells(rows, column, suite.higher_is_better[column], best[column]) for column in suite.columns}
    lines = []
    for block in _blocks(cells, width - margin):
        lines += [*table_lines(list(zip(["", *labels], *(cells[column] for column in block), strict=True))), ""]
    return "\n".join([*lines, *_verdict(best, labels), *_gaps(rows, labels)]).rstrip()


def write_scores(
    path: Path,
    files: Sequence[ClipFile],
    rows: Sequence[ScoreRow],
    suite: RewardSuite,
    *,
    protocol: Protocol,
    weights: str | None,
) -> None:
    """Write what was scored, as what, and by which rewards, in the form that the suffix of `path` names.

    Paths are relative to the file's folder. Parquet is a scores table of the pipeline with a few columns more.
    """
    table = [_row(path.parent, file, row) for file, row in zip(files, rows, strict=True)]
    made_by = {
        reward.name: {"version": reward.version, "weights": weights if reward.published else None}
        for reward in suite.rewards
    }
    if path.suffix == ".json":
        document = {
            "protocol": protocol,
            "rewards": made_by,
            "higher_is_better": suite.higher_is_better,
            "scores": table,
        }
        atomic_write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return
    with atomic_path(path) as temporary:
        if path.suffix == ".csv":
            import pandas as pd

            pd.DataFrame(table).to_csv(temporary, index=False)
        else:
            _write_parquet(temporary, table, suite, {"avdpo.rewards": json.dumps(made_by), "avdpo.protocol": protocol})


def _write_parquet(path: Path, table: list[dict[str, Any]], suite: RewardSuite, metadata: dict[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    better = suite.higher_is_better
    fields = [
        pa.field(name, pa.float64(), metadata={"higher_is_better": str(better[name]).lower()})
        if name in better
        else pa.field(name, pa.string())
        for name in table[0]
    ]
    named = {"avdpo.table": "scores", "avdpo.version": "1"} | metadata
    pq.write_table(pa.Table.from_pylist(table, pa.schema(fields, metadata=named)), path)


def _row(folder: Path, file: ClipFile, row: ScoreRow) -> dict[str, Any]:
    return {
        "candidate_id": row.candidate_id,
        "prompt_id": file.prompt.prompt_id,
        "prompt": file.prompt.prompt,
        "video_path": os.path.relpath(file.video_path, folder),
        "audio_path": None if file.audio_path is None else os.path.relpath(file.audio_path, folder),
        **row.scores,
        "error": row.error,
        "reasons": "\n".join(f"{column}: {reason}" for column, reason in row.reasons.items()) or None,
    }


def _labels(keys: Sequence[str]) -> list[str]:
    """The ids without the folders that they all share."""
    folders = [os.path.dirname(key) for key in keys]
    if len(set(folders)) == 1:
        return [key[len(folder) :].lstrip("/\\") for key, folder in zip(keys, folders, strict=True)]
    return list(keys)


def _best(rows: Sequence[ScoreRow], column: str, higher: bool) -> int | None:
    """The row that is better than every other, where there is one."""
    scored = [(score, number) for number, row in enumerate(rows) if (score := row.scores[column]) is not None]
    ranked = sorted(scored, reverse=higher)
    return ranked[0][1] if len(ranked) >= 2 and ranked[0][0] != ranked[1][0] else None


def _cells(rows: Sequence[ScoreRow], column: str, higher: bool, best: int | None) -> list[str]:
    """Return the heading and one number per clip."""
    numbers = ["-" if (score := row.scores[column]) is None else f"{score:.4f}" for row in rows]
    marked = [f"{text}{'*' if number == best else ' '}" for number, text in enumerate(numbers)]
    return [f"{column} {_ARROWS[higher]}", *marked]


def _blocks(cells: dict[str, list[str]], width: int) -> list[list[str]]:
    blocks: list[list[str]] = []
    left = 0
    for column, texts in cells.items():
        needed = _GAP + max(map(len, texts))
        if not blocks or needed > left:
            blocks.append([])
            left = width
        blocks[-1].append(column)
        left -= needed
    return blocks


def _verdict(best: dict[str, int | None], labels: Sequence[str]) -> list[str]:
    legend = f"{_ARROWS[True]} higher is better, {_ARROWS[False]} lower is better"
    wins = Counter(number for number in best.values() if number is not None)
    if not wins:
        return [legend]
    ordered = sorted(wins, key=lambda number: (-wins[number], number))
    counts = ", ".join(f"{labels[number]} in {wins[number]}" for number in ordered)
    return [f"{legend}, * the best clip of a column", f"Best of {sum(wins.values())} metrics: {counts}"]


def _gaps(rows: Sequence[ScoreRow], labels: Sequence[str]) -> list[str]:
    """Return the reasons for missing scores, columns of one reason together."""
    lines = []
    for row, label in zip(rows, labels, strict=True):
        columns: dict[str, list[str]] = {}
        for column, reason in row.reasons.items():
            columns.setdefault(reason, []).append(column)
        for reason, names in columns.items():
            kind = "failed" if row.error and reason in row.error else "no score"
            lines.append(f"{label}: {kind} for {', '.join(names)}: {reason}")
    return ["", *lines] if lines else []
