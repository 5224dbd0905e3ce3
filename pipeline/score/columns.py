"""The metric columns of the scores table, filled from rows of the journal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from jobs.journal import Row
from pipeline.score.settings import ChosenReward


class ScoreColumns:
    """Scores and reasons by row of the table; a later row of the journal replaces an earlier one.

    Attributes:
        kept: reward name -> the reward whose scores the table holds.
        values: metric -> (num_rows,) float64, NaN if there is no score.
    """

    def __init__(self, num_rows: int, current: Sequence[ChosenReward], earlier: Sequence[ChosenReward]) -> None:
        rewards = [*current, *earlier]
        self.kept = {chosen.reward.name: chosen for chosen in rewards}
        self._num_rows = num_rows
        self._rewards = {column: chosen.reward for chosen in rewards for column in chosen.reward.columns}
        self.values = {column: np.full(num_rows, math.nan) for column in self._rewards}
        self._is_scored = {chosen.reward.name: np.zeros(num_rows, bool) for chosen in earlier}
        self._reasons: dict[int, dict[str, list[str]]] = {}  # row -> reward name -> lines

    def put(self, row: int, entry: Row) -> None:
        """Store the scores of one reward for one candidate."""
        if entry["reward"] in self._is_scored:
            self._is_scored[entry["reward"]][row] = True
        for column, score in entry["scores"].items():
            self.values[column][row] = math.nan if score is None else score
        lines = [f"{column}: {reason}" for column, reason in entry["reasons"].items()]
        if lines or row in self._reasons:
            self._reasons.setdefault(row, {})[entry["reward"]] = lines

    def reasons(self) -> list[str | None]:
        """Return, per row, the reasons for null scores, in the order of the rewards."""
        return [
            "\n".join(line for name in self.kept for line in self._lines(row, name)) or None
            for row in range(self._num_rows)
        ]

    def _lines(self, row: int, name: str) -> Sequence[str]:
        """Return the reasons of one reward. For a reward of this run without scores, the row's error has the reason."""
        if name not in self._is_scored or self._is_scored[name][row]:
            return self._reasons.get(row, {}).get(name, ())
        return [
            f"{column}: not scored by {name!r}, which is not in this run" for column in self.kept[name].reward.columns
        ]

    def fields(self) -> list[pa.Field]:
        return [
            pa.field(
                column,
                pa.float64(),
                metadata={
                    "higher_is_better": str(reward.higher_is_better[column]).lower(),
                    "reward": reward.name,
                    "needs": " ".join(sorted(reward.needs)),
                },
            )
            for column, reward in self._rewards.items()
        ]
