"""Advantages of scored candidates within their prompt's group, and their routing to the modalities' losses.

Everything is numpy float64. A NaN is a score that failed: the advantage is NaN there, and only there.
See docs/upstream/nft.md, sections 2 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.ids import fingerprint
from dpo.loss.group_statistics import (
    Floats,
    centred,
    column_std,
    group_means,
    group_sums,
    median_deviation,
    scores_by_group,
)
from dpo.loss.nft_settings import AdvantageMode, AdvantageScale, check_choice

STD_EPS = 1e-4  # published; absolute, so rewards should not be much smaller than 0.01
AUDIO_VIDEO = "audio_video"  # declared modality of rewards that judge both together


def group_advantages(
    rewards: ArrayLike, groups: ArrayLike, *, scale: AdvantageScale, eps: float = STD_EPS, clip: float | None = None
) -> Floats:
    """Return the advantages (N, K) of rewards (N, K): (reward - mean of its group) / (scale + eps), per column.

    Args:
        rewards: scores, higher is better (see `oriented`); NaN where a score failed.
        groups: (N,) labels; candidates of one prompt share a label.
        scale: "group" is the standard deviation of the group, "table" that of the whole column, spread between the
            groups included (published default), both with ddof 0; "mad" is the median absolute deviation of the
            column's centred rewards, times 1.4826, which outliers do not enlarge.
        eps: added to the scale.
        clip: bound of the absolute advantages; None leaves them unbounded.

    In a group of one, or of equal scores, advantages are 0.

    Raises:
        ValueError: for shapes that disagree, infinite scores, or scale "mad" of a column with more than half ties.
    """
    check_choice("scale", scale, get_args(AdvantageScale))
    scores, index = scores_by_group(rewards, groups)
    deviations = centred(scores, index)
    if scale == "group":
        spread = np.sqrt(group_means(deviations**2, index))[index]
    elif scale == "table":
        spread = column_std(scores)
    else:
        spread = median_deviation(deviations)
    advantages = deviations / (spread + eps)
    return advantages if clip is None else np.clip(advantages, -clip, clip)


def tied_groups(rewards: ArrayLike, groups: ArrayLike) -> NDArray[np.int64]:
    """Return the number of groups (K,) without a preference per column: with equal scores, or less than two."""
    scores, index = scores_by_group(rewards, groups)
    deviations = np.nan_to_num(centred(scores, index))
    return (group_sums(np.abs(deviations), index) == 0).sum(axis=0)


def oriented(rewards: ArrayLike, higher_is_better: Sequence[bool]) -> Floats:
    """Return rewards (N, K) with the columns negated in which lower is better."""
    return np.asarray(rewards, dtype=np.float64) * np.where(higher_is_better, 1.0, -1.0)


def adv_mode(advantages: ArrayLike, mode: AdvantageMode) -> Floats:
    """Return the part of clipped advantages that trains; NaN stays NaN.

    Args:
        advantages: any shape, already clipped.
        mode: "all" of them; "positive_only" or "negative_only", 0 for the others; "one_only", 1 for positive ones and
            0 for the others; "binary", their signs.
    """
    check_choice("adv_mode", mode, get_args(AdvantageMode))
    values = np.asarray(advantages, dtype=np.float64)
    if mode == "positive_only":
        return np.maximum(values, 0.0)
    if mode == "negative_only":
        return np.minimum(values, 0.0)
    if mode == "one_only":
        return np.maximum(np.sign(values), 0.0)
    return np.sign(values) if mode == "binary" else values


def shuffled_within_groups(advantages: ArrayLike, groups: ArrayLike, *, seed: int, clip: float | None = None) -> Floats:
    """Return advantages (N, K) that say nothing about their candidates: the control that an experiment needs.

    In each group every candidate gets another one's row, clipped; then each column is centred again within the group,
    so that no push common to all candidates is left. A candidate with a NaN takes no part, and keeps NaN in all
    columns; a group that has only one other candidate has the advantage 0. The order depends on the seed and on the
    group's label alone.
    """
    values, index = scores_by_group(advantages, groups)
    values = values if clip is None else np.clip(values, -clip, clip)
    complete = ~np.isnan(values).any(axis=1)
    shuffled = np.full_like(values, np.nan)
    for number, label in enumerate(np.unique(np.asarray(groups))):
        rows = np.flatnonzero((index == number) & complete)
        rng = np.random.default_rng([seed, int(fingerprint(str(label)), 16)])
        shuffled[rows] = values[rows[_derangement(len(rows), rng)]]
    return centred(shuffled, index)


@dataclass(frozen=True, eq=False)
class Routing:
    """Assignment of rewards to the modalities' losses.

    Attributes:
        rewards: names of the K rewards.
        modalities: names of the M modalities.
        matrix: (K, M), the share of each reward's advantage that each loss gets; 0 where it gets none.
    """

    rewards: tuple[str, ...]
    modalities: tuple[str, ...]
    matrix: Floats

    def __post_init__(self) -> None:
        if self.matrix.shape != (len(self.rewards), len(self.modalities)):
            raise ValueError(
                f"The matrix of the routing has shape {self.matrix.shape} for {len(self.rewards)} rewards and "
                f"{len(self.modalities)} modalities: give a row per reward and a column per modality."
            )
        for name, column in zip(self.modalities, self.matrix.T, strict=True):
            if not column.any():
                raise ValueError(
                    f"No reward of {', '.join(self.rewards) or 'none'} is routed to {name}, so its loss would have no "
                    "direction: add a reward that judges it, or route every reward to every modality."
                )


def default_routing(declared: Mapping[str, str], modalities: Sequence[str] = ("video", "audio")) -> Routing:
    """Route each reward to the loss of the modality that it judges, and rewards of audio and video to both.

    Args:
        declared: reward -> its modality, or "audio_video"; `rewards.metrics.MODALITY_METRICS` declares the project's.
        modalities: modalities that have a loss.

    Raises:
        ValueError: for a modality without a loss, or a loss without a reward.
    """
    for reward, modality in declared.items():
        if modality not in (*modalities, AUDIO_VIDEO):
            raise ValueError(
                f"Reward {reward!r} is declared for {modality!r}: give one of {', '.join(modalities)} or {AUDIO_VIDEO}."
            )
    rows = [[float(judged in (name, AUDIO_VIDEO)) for name in modalities] for judged in declared.values()]
    return Routing(tuple(declared), tuple(modalities), np.array(rows).reshape(len(declared), len(modalities)))


def summed(rewards: Sequence[str], modalities: Sequence[str] = ("video", "audio")) -> Routing:
    """Route every reward to every loss: all losses have the same advantage."""
    return Routing(tuple(rewards), tuple(modalities), np.ones((len(rewards), len(modalities))))


def route(
    advantages: ArrayLike, weights: Mapping[str, float], routing: Routing, *, normalise: bool = False
) -> dict[str, Floats]:
    """Return the advantage of each modality's loss: modality -> (N,), weighted sums of the rewards' advantages.

    Args:
        advantages: (N, K), columns in the order of `routing.rewards`.
        weights: reward -> weight.
        routing: the rewards of each loss.
        normalise: divide by the sum of each modality's absolute weights; the published sum is not divided.

    A candidate's advantage is NaN if one of the modality's rewards failed.

    Raises:
        ValueError: for other rewards or shapes, or a modality whose weights are all 0.
    """
    columns = np.asarray(advantages, dtype=np.float64)
    if set(weights) != set(routing.rewards) or columns.ndim != 2 or columns.shape[1] != len(routing.rewards):
        raise ValueError(
            f"Advantages of shape {columns.shape} and weights of {', '.join(weights)} do not fit the routing of "
            f"{', '.join(routing.rewards)}: give a column and a weight for each of these."
        )
    routed = {}
    for number, name in enumerate(routing.modalities):
        shares = np.array([weights[reward] for reward in routing.rewards]) * routing.matrix[:, number]
        used = shares != 0  # a failed score of an unused reward must not spread
        if not used.any():
            raise ValueError(f"All rewards of {name} have weight 0: give one of them a weight.")
        total = np.abs(shares).sum() if normalise else 1.0
        routed[name] = columns[:, used] @ shares[used] / total
    return routed


def _derangement(size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a random permutation that is one cycle (Sattolo's algorithm), so that nothing keeps its place."""
    order = np.arange(size)
    for last in range(size - 1, 0, -1):
        other = int(rng.integers(last))
        order[[last, other]] = order[[other, last]]
    return order
