"""The tables behind `rewards.agreement`: scores by candidate, and preferences between two candidates."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.storage import local_copy
from rewards.metrics import HIGHER_IS_BETTER, METRIC_COLUMNS, MODALITY_METRICS

OVERALL = "overall"
MODALITIES = (*MODALITY_METRICS, OVERALL)
_CANDIDATE_ID = re.compile(r"(?P<prompt_id>.+)/(gt|\d+)", re.DOTALL)
_WINNERS = {"a": 1, "b": -1, "tie": 0}


@dataclass(frozen=True)
class ScoreTable:
    """Scores by candidate, all signed so that higher is better: metrics, and the modality scores they make up."""

    frame: pd.DataFrame  # index candidate_id; float64, NaN where missing
    prompts: pd.Series[str]  # index candidate_id; "" where the prompt is not known
    notes: tuple[str, ...]

    @property
    def metrics(self) -> list[str]:
        return [str(name) for name in self.frame if name not in MODALITIES]


@dataclass(frozen=True)
class Preferences:
    """P pairs of candidates with the preferred one of each, in one respect."""

    respect: str  # a modality, "overall", or a metric
    first: np.ndarray  # (P,) candidate ids
    second: np.ndarray  # (P,)
    sign: np.ndarray  # (P,) 1: the first is preferred; -1: the second; 0: neither


def read_scores(path: Path) -> ScoreTable:
    """Read a scores table (Parquet of `pipeline.score`, CSV or Parquet of `rewards.score`) and add modality scores.

    A modality score is the mean of its metrics, each standardised over the table, as ranking makes it; "overall" is the
    sum of the three.

    Raises:
        ValueError: the file is not such a table, holds no metric, or a candidate comes twice.
    """
    frame = read_frame(path)
    if "candidate_id" not in frame:
        raise ValueError(
            f"{path} has no column 'candidate_id' (it has: {', '.join(map(str, frame))}), so it is not a scores table."
        )
    keys = _ids(path, frame, "candidate_id")
    if (twice := keys.duplicated()).any():
        raise ValueError(f"{path}: the candidate {keys[twice].iloc[0]!r} comes twice. Keep one row for each.")
    directions = _directions(path) | HIGHER_IS_BETTER
    known = [name for name in (*METRIC_COLUMNS, *frame) if name in frame and name in directions]
    metrics = list(dict.fromkeys(name for name in known if frame[name].notna().any()))
    numbers = [str(name) for name, kind in frame.dtypes.items() if kind.kind == "f" and name not in directions]
    if not metrics:
        raise ValueError(
            f"{path} holds no scores. It needs a column such as {METRIC_COLUMNS[0]!r}; columns of your own need a "
            "Parquet table, which says whether higher is better."
        )
    signed = pd.DataFrame(
        {name: _numbers(path, frame[name]) * (1 if directions[name] else -1) for name in metrics}
    ).set_axis(keys)
    prompts = frame["prompt_id"].astype(str) if "prompt_id" in frame else keys.map(prompt_of)
    modalities, notes = _modality_scores(signed)
    if numbers:
        notes.append(f"{', '.join(numbers)} left out: only a Parquet table says whether higher is better")
    return ScoreTable(pd.concat([signed, modalities], axis=1), prompts.set_axis(keys), tuple(notes))


def read_preferences(path: Path) -> list[Preferences]:
    """Read labels: `chosen_id, rejected_id`, or `a, b, winner` (a, b or tie); each with `modality` or without.

    Raises:
        ValueError: columns or values are others.
    """
    frame = read_frame(path)
    if frame.empty:
        raise ValueError(f"{path} holds no rows, and so no labels. Add at least one pair.")
    if {"chosen_id", "rejected_id"} <= set(frame):
        names, sign = ("chosen_id", "rejected_id"), np.ones(len(frame), dtype=np.int64)
    elif {"a", "b", "winner"} <= set(frame):
        names = ("a", "b")
        sign = np.array([_sign(path, row, value) for row, value in enumerate(frame["winner"])], dtype=np.int64)
    else:
        raise ValueError(
            f"{path} has the columns {', '.join(map(str, frame))}, which are no labels. Give chosen_id and "
            "rejected_id; or a, b and winner; or another scores table with candidate_id."
        )
    first, second = (_ids(path, frame, name) for name in names)
    if (same := (first == second).to_numpy()).any():
        raise ValueError(f"{path}, row {same.argmax()}: {first[same.argmax()]!r} is compared with itself.")
    respects = frame["modality"] if "modality" in frame else pd.Series([OVERALL] * len(frame))
    _check_modalities(path, respects)
    return [
        Preferences(
            name,
            first[respects == name].to_numpy(),
            second[respects == name].to_numpy(),
            sign[(respects == name).to_numpy()],
        )
        for name in MODALITIES
        if (respects == name).any()
    ]


def preferences_within_prompts(labels: ScoreTable, candidates: Iterable[str]) -> list[Preferences]:
    """Return the preferences of another scores table between candidates of a prompt, per column of that table.

    Args:
        candidates: the ids to pair; those that `labels` does not have are left out.

    Raises:
        ValueError: the table does not show which candidates belong to one prompt.
    """
    both = [key for key in candidates if key in labels.frame.index]
    if unknown := [key for key in both if not labels.prompts[key]]:
        raise ValueError(
            f"The prompt of candidate {unknown[0]!r} is not known: ids are <prompt_id>/<number> or <prompt_id>/gt, or "
            "the tables have a column prompt_id. Add the column to the labels."
        )
    groups = pd.Series(both, dtype=object).groupby(labels.prompts[both].to_numpy(), sort=False)
    pairs = [pair for _, keys in groups for pair in itertools.combinations(keys, 2)]
    first, second = np.array(pairs, dtype=object).reshape(-1, 2).T
    preferences = []
    for name in map(str, labels.frame):
        difference = labels.frame[name].loc[first].to_numpy() - labels.frame[name].loc[second].to_numpy()
        defined = ~np.isnan(difference)
        preferences.append(Preferences(name, first[defined], second[defined], np.sign(difference[defined]).astype(int)))
    return preferences


def prompt_of(candidate_id: str) -> str:
    """The prompt_id in a candidate_id, "" where it is not of that form."""
    match = _CANDIDATE_ID.fullmatch(candidate_id)
    return match["prompt_id"] if match else ""


def read_frame(path: Path) -> pd.DataFrame:
    """A CSV or Parquet table; ids stay text."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(f"{path} is {path.suffix or 'without suffix'}, but must be a .csv or .parquet table.")
    if not path.is_file():
        raise ValueError(f"{path} does not exist.")
    try:
        with local_copy(path) as file:
            if path.suffix.lower() == ".parquet":
                return pd.read_parquet(file)
            ids = ("candidate_id", "prompt_id", "chosen_id", "rejected_id", "pair_id", "a", "b", "winner", "modality")
            return pd.read_csv(file, dtype=dict.fromkeys(ids, str))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}. Correct the file.") from error


def _ids(path: Path, frame: pd.DataFrame, column: str) -> pd.Series[str]:
    if (empty := frame[column].isna().to_numpy()).any():
        raise ValueError(f"{path}, column {column!r}, row {empty.argmax()}: the cell is empty. Give the id, or no row.")
    return frame[column].astype(str)


def _numbers(path: Path, scores: pd.Series[Any]) -> pd.Series[float]:
    numbers = pd.to_numeric(scores, errors="coerce").astype(float)
    wrong = (numbers.isna() & scores.notna() | np.isinf(numbers)).to_numpy()
    if wrong.any():
        row = wrong.argmax()
        raise ValueError(
            f"{path}, column {scores.name!r}, row {row}: {scores.iloc[row]!r} is no finite number. Correct it, or "
            "leave the cell empty where there is no score."
        )
    return numbers


def _directions(path: Path) -> dict[str, bool]:
    """Return the directions stored in the schema of a Parquet table, by column."""
    if path.suffix.lower() != ".parquet":
        return {}
    import pyarrow.parquet as pq

    stored = {field.name: (field.metadata or {}).get(b"higher_is_better") for field in pq.read_schema(path)}
    return {name: value == b"true" for name, value in stored.items() if value is not None}


def _modality_scores(signed: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    deviations = signed.std(ddof=1)
    standardised = (signed - signed.mean()) / deviations.where(deviations > 0, 1.0)
    scores, notes = {}, []
    for modality, metrics in MODALITY_METRICS.items():
        if missing := [metric for metric in metrics if metric not in signed]:
            notes.append(f"no {modality} score: the table has no {', '.join(missing)}")
        else:
            scores[modality] = standardised[list(metrics)].mean(axis=1, skipna=False)
    if len(scores) == len(MODALITY_METRICS):
        scores[OVERALL] = pd.DataFrame(scores).sum(axis=1, skipna=False)
    return pd.DataFrame(scores, index=signed.index), notes


def _sign(path: Path, row: int, value: object) -> int:
    if (winner := str(value).strip().lower()) not in _WINNERS:
        raise ValueError(f"{path}, column 'winner', row {row}: {value!r} is none of {', '.join(_WINNERS)}.")
    return _WINNERS[winner]


def _check_modalities(path: Path, respects: pd.Series[str]) -> None:
    for row, value in enumerate(respects):
        if value not in MODALITIES:
            raise ValueError(f"{path}, column 'modality', row {row}: {value!r} is none of {', '.join(MODALITIES)}.")
