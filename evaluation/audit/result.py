"""The result of an audit."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.audit.columns import RewardColumn
from evaluation.statistics.correlation import Correlation


@dataclass(frozen=True)
class RewardFigures:
    """Figures of one reward over generated candidates; None where they are not defined.

    Attributes:
        failed: share of candidates without a score.
        ties: share of pairs of candidates of a prompt that have equal scores.
        flat_groups: share of prompts, of two scored candidates at least, whose scores are all equal.
        within_std, between_std: standard deviation around the means of the prompts, and of these means.
        headroom: mean over prompts of the best score minus the mean one, in standard deviations over all candidates.
        truth_wins: share of prompts whose ground truth is better than every generated candidate.
    """

    name: str
    modality: str | None
    num_candidates: int
    failed: float
    ties: float | None
    flat_groups: float | None
    within_std: float | None
    between_std: float | None
    headroom: float | None
    truth_wins: float | None


@dataclass(frozen=True)
class Pairing:
    """Correlation of a reward with another reward, or with a counter-metric; rewards are taken with higher as better.

    Attributes:
        kind: "rewards" or "counter".
    """

    kind: str
    first: str
    second: str
    correlation: Correlation


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        group_sizes: candidates of each prompt, in increasing order.
        num_ground_truth: ground-truth clips, which take part in `truth_wins` only.
        headroom: best of K by the mean of all modalities, standardised as in evaluation.compare.
        truth_wins: share of prompts whose ground truth is better than every candidate by that mean.
        warnings: a sentence for everything that should be looked at before a training.
    """

    columns: tuple[RewardColumn, ...]
    group_sizes: tuple[int, ...]
    num_ground_truth: int
    rewards: tuple[RewardFigures, ...]
    headroom: float | None
    truth_wins: float | None
    correlations: tuple[Pairing, ...]
    warnings: tuple[str, ...] = ()
