"""Agreement of scores with preferences of people or of other rewards, such as the verifiable ones.

    python -m rewards.agreement --scores learned.parquet --labels people.csv
    python -m rewards.agreement --scores runs/a/scores/scores.parquet --labels runs/b/scores/scores.parquet

Of each metric and each modality score: the share of pairs that it orders as the labels do, and Kendall's tau.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd

from core.cli import atomic_write_text, echo, parse_config
from core.text_table import table_lines
from rewards.agreement_tables import (
    MODALITIES,
    Preferences,
    ScoreTable,
    preferences_within_prompts,
    read_frame,
    read_preferences,
    read_scores,
)

ABOUT = (
    "How far scores agree with preferences: pairwise accuracy with a 95 % interval, and Kendall's tau, for each metric "
    "and each modality. Exit status: 0, or 2 on a mistake in what was given."
)
Z_95 = 1.959964  # standard deviations
_NAMED = 3  # ids shown in a warning


@dataclass(frozen=True, kw_only=True)
class AgreementConfig:
    """Settings of `python -m rewards.agreement`."""

    scores: Path = field(metadata={"help": "Scores table: Parquet or CSV, of pipeline.score or rewards.score."})
    labels: Path = field(
        metadata={
            "help": "CSV or Parquet. Pairs: chosen_id, rejected_id; or a, b, winner (a, b or tie); with a column "
            f"modality ({', '.join(MODALITIES)}) or without, which means overall. Or another scores table, which is "
            "taken to prefer the better-scored of two candidates of a prompt."
        }
    )
    output: Path | None = field(default=None, metadata={"help": "File to write as well: .csv or .json."})

    def __post_init__(self) -> None:
        if self.output is not None and self.output.suffix not in (".csv", ".json"):
            raise ValueError(f"output is {self.output}, but must end in .csv or .json.")


@dataclass(frozen=True)
class Agreement:
    """Agreement of one column of scores with the labels in one respect."""

    respect: str  # what the labels judge: a modality, "overall", or a metric
    score: str  # the metric or modality score that is compared with them
    num_pairs: int  # labelled pairs whose two scores are known
    num_label_ties: int  # of these, pairs that the labels call equal: not in the accuracy
    num_score_ties: int  # of the others, pairs with equal scores: half right each
    accuracy: float | None  # None where no pair is left
    low: float | None  # 95 % interval of the accuracy
    high: float | None
    tau: float | None  # Kendall's tau-b over the pairs; None where one side calls all of them equal


@dataclass(frozen=True)
class AgreementReport:
    rows: list[Agreement]
    notes: list[str]


def agreement(scores: Path, labels: Path) -> AgreementReport:
    """Compare a scores table with labels.

    Labelled pairs of one respect are compared with every column of the scores; a scores table as labels is compared
    column by column.

    Raises:
        ValueError: one of the tables cannot be used, or they have no candidate in common.
    """
    table = read_scores(scores)
    notes = [f"{scores.name}: {note}" for note in table.notes]
    by_column = "candidate_id" in read_frame(labels)
    if by_column:
        other = read_scores(labels)
        notes += [f"{labels.name}: {note}" for note in other.notes]
        notes += _unmatched(labels, list(other.frame.index), table) + _without_labels(labels, table, other)
        preferences = preferences_within_prompts(other, table.frame.index)
    else:
        preferences = read_preferences(labels)
        ids = dict.fromkeys(key for one in preferences for key in (*one.first, *one.second))
        notes += _unmatched(labels, list(ids), table)
    rows = [compare(table, one, name) for one in preferences for name in _columns(table, one, by_column)]
    if by_column and not rows:
        raise ValueError(f"{scores} and {labels} have no column in common, so there is nothing to compare.")
    return AgreementReport(rows, notes)


def compare(table: ScoreTable, preferences: Preferences, name: str) -> Agreement:
    """Return the agreement of the column `name` with the pairs. Pairs without both scores are left out."""
    column = table.frame[name].reindex([*preferences.first, *preferences.second]).to_numpy()  # (2P,)
    first, second = np.split(column, 2)
    known = ~np.isnan(first - second)
    order = np.sign(first - second)[known]  # (N,)
    label = preferences.sign[known]
    decided = label != 0
    right = np.where(order == 0, 0.5, order == label)[decided]
    groups = _groups(table, preferences)[known][decided]
    accuracy, low, high = _accuracy(right, groups)
    return Agreement(
        respect=preferences.respect,
        score=name,
        num_pairs=len(order),
        num_label_ties=int((~decided).sum()),
        num_score_ties=int((order[decided] == 0).sum()),
        accuracy=accuracy,
        low=low,
        high=high,
        tau=_tau(order, label),
    )


def main(argv: Sequence[str] | None = None) -> int:
    config = parse_config(AgreementConfig, argv, about=ABOUT)
    try:
        report = agreement(config.scores, config.labels)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    echo(agreement_text(report))
    if config.output is not None:
        write_agreement(config.output, report)
        echo(f"written: {config.output}")
    return 0


def agreement_text(report: AgreementReport) -> str:
    """Return the printed table, one section per respect of the labels."""
    header = ["labels", "score", "pairs", "accuracy", "95 % interval", "tau", "label ties", "score ties"]
    cells = [_cells(row) for row in report.rows]
    heading, *lines = table_lines([header, *cells], "llr")
    text = [heading]
    several = len({row.respect for row in report.rows}) < len(report.rows)
    for place, line in enumerate(lines):
        if several and place and cells[place][0] != cells[place - 1][0]:
            text.append("")
        text.append(line)
    text += [
        "",
        "All scores are taken with higher as better. Pairs that the labels call equal are not in the accuracy;",
        "a pair with equal scores is half right. Interval: Wilson, allowing for pairs that share a prompt.",
    ]
    return "\n".join([*text, *(f"note: {note}" for note in report.notes)])


def write_agreement(path: Path, report: AgreementReport) -> None:
    """Write the rows as CSV, or rows and notes as JSON."""
    rows = [asdict(row) for row in report.rows]
    if path.suffix == ".json":
        text = json.dumps({"rows": rows, "notes": report.notes}, indent=2, ensure_ascii=False) + "\n"
    else:
        text = pd.DataFrame(rows, columns=[item.name for item in fields(Agreement)]).to_csv(index=False)
    atomic_write_text(path, text)


def _columns(table: ScoreTable, preferences: Preferences, by_column: bool) -> Iterator[str]:
    """Return the columns to compare in a respect: the one of its name, or the modality scores and then every metric."""
    if by_column:
        yield from (name for name in table.frame if name == preferences.respect)
        return
    yield from (name for name in MODALITIES if name in table.frame)
    yield from table.metrics


def _unmatched(labels: Path, ids: Sequence[str], table: ScoreTable) -> list[str]:
    """A warning when labels name candidates that were not scored. Raises ValueError when all do."""
    missing = [key for key in ids if key not in table.frame.index]
    examples = ", ".join([*map(repr, missing[:_NAMED]), *(["..."] if len(missing) > _NAMED else [])])
    if len(missing) == len(ids):
        scored = ", ".join(repr(key) for key in table.frame.index[:_NAMED])
        raise ValueError(
            f"None of the {len(ids)} candidates in {labels} is in the scores table: it has {scored}, the labels have "
            f"{examples}. Make the ids agree."
        )
    if not missing:
        return []
    return [f"{labels.name}: {len(missing)} of {len(ids)} candidates have no scores and are left out ({examples})"]


def _without_labels(labels: Path, table: ScoreTable, other: ScoreTable) -> list[str]:
    """Return what the scores table has and a table of labels lacks."""
    missing = [key for key in table.frame.index if key not in other.frame.index]
    columns = [name for name in table.metrics if name not in other.frame]
    notes = [f"{labels.name}: {len(missing)} of {len(table.frame)} scored candidates are not in it"] if missing else []
    return notes + ([f"{labels.name}: it has no {', '.join(columns)} to compare with"] if columns else [])


def _groups(table: ScoreTable, preferences: Preferences) -> np.ndarray:
    """A number per pair (P,): the same for pairs of one prompt, which are no independent evidence."""
    first = table.prompts.reindex(preferences.first).fillna("").to_numpy()
    second = table.prompts.reindex(preferences.second).fillna("").to_numpy()
    names = [
        (prompt, -1) if prompt and prompt == other else ("", number)
        for number, (prompt, other) in enumerate(zip(first, second, strict=True))
    ]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def _accuracy(right: np.ndarray, groups: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Mean of `right` (N,) and its Wilson interval, for as many independent pairs as the groups are worth.

    The design effect of Kish: variance of the mean between groups against that of independent pairs.
    """
    if not len(right):
        return None, None, None
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    num_pairs, num_groups = len(right), len(sizes)
    mean = float(right.mean())
    surplus = np.bincount(codes, weights=right - mean)  # (G,)
    variance = float((surplus**2).sum()) / num_pairs**2 * num_groups / max(num_groups - 1, 1)
    spread = mean * (1 - mean)
    # Never more than the pairs; where all agree, groups show no spread, and each counts once.
    independent = min(spread / variance, num_pairs) if variance > 0 and num_groups > 1 else float(num_groups)
    centre = (mean + Z_95**2 / (2 * independent)) / (1 + Z_95**2 / independent)
    half = Z_95 / (1 + Z_95**2 / independent) * math.sqrt(spread / independent + Z_95**2 / (4 * independent**2))
    return mean, max(centre - half, 0.0), min(centre + half, 1.0)


def _tau(order: np.ndarray, label: np.ndarray) -> float | None:
    """Kendall's tau-b from the signs of the pairs (N,): agreeing less disagreeing, over those without a tie."""
    decided = math.sqrt(float((order != 0).sum()) * float((label != 0).sum()))
    return float((order * label).sum()) / decided if decided else None


def _cells(row: Agreement) -> list[str]:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    interval = "-" if row.low is None or row.high is None else f"{100 * row.low:.1f} to {100 * row.high:.1f}"
    tau = "-" if row.tau is None else f"{row.tau:+.3f}"
    counts = (row.num_label_ties, row.num_score_ties)
    return [row.respect, row.score, str(row.num_pairs), percent(row.accuracy), interval, tau, *map(str, counts)]


if __name__ == "__main__":
    sys.exit(main())
