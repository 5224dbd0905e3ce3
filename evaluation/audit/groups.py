"""Scores by prompt, with higher as better, and the figures that compare the candidates of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from evaluation.audit.columns import RewardColumn


@dataclass(frozen=True, eq=False)
class GroupedScores:
    """N generated candidates and M ground-truth clips with K scores each, signed so that higher is better."""

    columns: tuple[RewardColumn, ...]
    candidate_ids: list[str]  # empty texts where the table has none
    scores: np.ndarray  # (N, K); NaN where a score failed
    groups: np.ndarray  # (N,) number of the prompt
    truth: np.ndarray  # (M, K)
    truth_groups: np.ndarray  # (M,) number of the prompt; -1 for a prompt without a generated candidate

    @staticmethod
    def of(table: pd.DataFrame, columns: Sequence[RewardColumn]) -> GroupedScores:
        """Sort a table, as `audit` takes it, into generated candidates and ground truth.

        Raises:
            ValueError: a column is missing, or there are no generated candidates.
        """
        missing = [name for name in ("prompt_id", *(column.name for column in columns)) if name not in table]
        if missing:
            raise ValueError(f"The scores to audit have no column {', '.join(missing)}. Add it, or leave it out.")
        is_truth = np.zeros(len(table), dtype=bool)
        if "is_ground_truth" in table:
            is_truth = table["is_ground_truth"].fillna(False).to_numpy(dtype=bool)
        generated, truth = table[~is_truth], table[is_truth]
        if generated.empty:
            raise ValueError("The scores to audit have no generated candidate. Sample and score some.")
        groups, prompt_ids = pd.factorize(generated["prompt_id"])
        ids = generated["candidate_id"].tolist() if "candidate_id" in generated else [""] * len(generated)
        signs = np.array([column.sign for column in columns], dtype=np.float64)
        names = [column.name for column in columns]
        return GroupedScores(
            columns=tuple(columns),
            candidate_ids=ids,
            scores=_finite(generated[names]) * signs,
            groups=groups,
            truth=_finite(truth[names]) * signs,
            truth_groups=pd.Index(prompt_ids).get_indexer(truth["prompt_id"]),
        )

    def overall(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean over modalities of the mean standardised score, (N,), and the same of ground truth, (M,).

        Scores are standardised over the generated candidates. A candidate with a failed score has none.
        """
        spread = np.array([_spread(values[np.isfinite(values)]) for values in self.scores.T])
        means = np.array(
            [values[np.isfinite(values)].mean() if np.isfinite(values).any() else 0.0 for values in self.scores.T]
        )
        modalities: dict[str | None, list[int]] = {}
        for place, column in enumerate(self.columns):
            if np.isfinite(self.scores[:, place]).any():  # a score that always fails would leave nothing
                modalities.setdefault(column.modality, []).append(place)

        def combined(scores: np.ndarray) -> np.ndarray:
            standardised = (scores - means) / spread
            parts = [standardised[:, places].mean(axis=1) for places in modalities.values()]
            return np.mean(parts, axis=0) if parts else np.full(len(scores), np.nan)

        return combined(self.scores), combined(self.truth)


def tie_share(values: np.ndarray, groups: np.ndarray) -> float | None:
    """Return the share of pairs within groups that have equal values; None without a pair. No value may be NaN."""
    sizes = pd.Series(groups).value_counts().to_numpy()
    equal = pd.DataFrame({"group": groups, "value": values}).value_counts().to_numpy()
    num_pairs = int((sizes * (sizes - 1)).sum())
    return float((equal * (equal - 1)).sum() / num_pairs) if num_pairs else None


def flat_share(values: np.ndarray, groups: np.ndarray) -> float | None:
    """Return the share of groups, of two values at least, that are all equal; None without such a group."""
    found = pd.Series(values).groupby(groups).agg(["size", "min", "max"])
    found = found[found["size"] >= 2]
    return float((found["min"] == found["max"]).mean()) if len(found) else None


def best_of_group(values: np.ndarray, groups: np.ndarray) -> float | None:
    """Return the mean over groups of the best value minus the mean one; groups of one value are left out."""
    known = np.isfinite(values)
    found = pd.Series(values[known]).groupby(groups[known]).agg(["size", "max", "mean"])
    found = found[found["size"] >= 2]
    return float((found["max"] - found["mean"]).mean()) if len(found) else None


def truth_wins(values: np.ndarray, groups: np.ndarray, truth: np.ndarray, truth_groups: np.ndarray) -> float | None:
    """Return the share of groups whose ground truth is better than every other value; None without ground truth."""
    known = np.isfinite(values)
    best = pd.Series(values[known]).groupby(groups[known]).max().reindex(truth_groups).to_numpy()
    compared = np.isfinite(best) & np.isfinite(truth)
    return float((truth > best)[compared].mean()) if compared.any() else None


def _finite(table: pd.DataFrame) -> np.ndarray:
    values = table.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _spread(values: np.ndarray) -> float:
    """Return the standard deviation; 1 for values that do not vary, so that they count as 0."""
    return float(values.std(ddof=1)) if len(values) > 1 and np.ptp(values) > 0 else 1.0
