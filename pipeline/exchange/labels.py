"""Human labels of pairs of clips, read from files. The report's labelling mode writes such files.

Labels are rows of CSV or Parquet files: `modality` (video, audio, audio_video or overall; overall if there is no such
column), `winner`, `annotator` (optional; by default the file's name), and the pair in one of two forms:

    a, b        the candidate ids that were shown; `winner` is a, b or tie
    pair_id     of the pairs table (prompt_id if the table has no pair_id); `winner` is chosen, rejected or tie

If a table has both forms, `a` and `b` are used, so that labels stay valid when pairs are ranked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from core.storage import storage_path
from rewards.agreement_tables import MODALITIES, OVERALL, read_frame, read_preferences

_SIDES = {"chosen": 1, "rejected": -1, "tie": 0}


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of one or more files, one row per label.

    rows: `a`, `b` (candidate ids; null if the pair is named by its id), `pair_id` (null if the table has none),
        `respect`, `annotator`, `vote` (1: a, or the chosen one; -1: b, or the rejected one; 0: neither).
    source: The files, for messages.
    """

    rows: pd.DataFrame
    source: str


def read_labels(paths: str | Path | Sequence[str | Path]) -> Labels:
    """Read the labels of one or more files.

    Raises:
        ValueError: a file cannot be read, a value is unknown, or an annotator labels one pair twice in one respect. The
            message names file, column and row.
    """
    files = [storage_path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not files:
        raise ValueError("No labels are given. Name at least one CSV or Parquet file.")
    labels = Labels(pd.concat([_read(path) for path in files], ignore_index=True), ", ".join(map(str, files)))
    _check_once(labels)
    return labels


def pair_keys(first: pd.Series[str], second: pd.Series[str]) -> pd.Series[str]:
    """Return a key per pair of candidates that does not depend on their order."""
    keys = ["\0".join(sorted((str(a), str(b)))) for a, b in zip(first, second, strict=True)]
    return pd.Series(keys, index=first.index, dtype=object)


def _read(path: Path) -> pd.DataFrame:
    frame = read_frame(path).reset_index(drop=True)
    by_candidates = {"a", "b"} <= set(frame) or {"chosen_id", "rejected_id"} <= set(frame)
    respects = frame["modality"] if "modality" in frame else pd.Series(OVERALL, index=frame.index)
    rows = _by_candidates(path, respects) if by_candidates else _by_pair_id(path, frame, respects)
    rows["annotator"] = (
        frame["annotator"].astype(object).fillna(path.stem).astype(str) if "annotator" in frame else path.stem
    )
    rows["pair_id"] = frame["pair_id"].astype(str) if "pair_id" in frame else None
    return rows


def _by_candidates(path: Path, respects: pd.Series[str]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {"a": one.first, "b": one.second, "respect": one.respect, "vote": one.sign},
            index=respects.index[respects == one.respect],
        )
        for one in read_preferences(path)
    ]
    return pd.concat(parts).sort_index()


def _by_pair_id(path: Path, frame: pd.DataFrame, respects: pd.Series[str]) -> pd.DataFrame:
    if not {"pair_id", "winner"} <= set(frame):
        raise ValueError(
            f"{path} has the columns {', '.join(map(str, frame))}, which are no labels. Give pair_id and winner "
            "(chosen, rejected or tie), or a, b (candidate ids) and winner (a, b or tie)."
        )
    if frame.empty:
        raise ValueError(f"{path} holds no rows, and so no labels. Add at least one pair.")
    winners = frame["winner"].astype(str).str.strip().str.lower()
    for name, values, known in (("winner", winners, tuple(_SIDES)), ("modality", respects, MODALITIES)):
        if (unknown := ~values.isin(known)).any():
            row = int(unknown.to_numpy().argmax())
            advice = " Add the columns a and b, with the candidate ids." if values.iloc[row] in ("a", "b") else ""
            raise ValueError(
                f"{path}, column {name!r}, row {row}: {values.iloc[row]!r} is none of {', '.join(known)}.{advice}"
            )
    votes = winners.map(_SIDES).astype("int64")
    return pd.DataFrame({"a": None, "b": None, "respect": respects, "vote": votes}, index=frame.index)


def _check_once(labels: Labels) -> None:
    rows = labels.rows
    pairs = pair_keys(rows["a"], rows["b"]).where(rows["a"].notna(), rows["pair_id"])
    twice = pd.DataFrame({"pair": pairs, "respect": rows["respect"], "annotator": rows["annotator"]}).duplicated()
    if twice.any():
        row = rows[twice].iloc[0]
        pair = repr(row["pair_id"]) if pd.isna(row["a"]) else f"of {row['a']!r} and {row['b']!r}"
        raise ValueError(
            f"{labels.source}: {row['annotator']!r} labels the pair {pair} twice ({row['respect']}). "
            "Keep one label, or name each person in a column annotator."
        )
