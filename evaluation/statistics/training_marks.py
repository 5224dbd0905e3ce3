"""Which metrics are no judge of a model, because it was trained by them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from core.lineage import Lineage, RewardUse

Kind = Literal["trained", "related", "unknown", "held_out"]
KINDS: tuple[Kind, ...] = ("trained", "related", "unknown", "held_out")  # the first that applies


@dataclass(frozen=True)
class TrainingMark:
    """What a metric was to the models compared.

    Attributes:
        kind: trained: it chose winners of pairs that a model was trained on; related: it did not, but another score of
            the same reward did; unknown: no such training is known, but not all trainings of the models are; held_out:
            no compared model was trained on it.
        models: those that `kind` is said of; none of a held-out metric.
    """

    kind: Kind
    models: tuple[str, ...] = ()


def mark(metric: str, reward: str | None, lineages: Mapping[str, Lineage]) -> TrainingMark:
    """The mark of a metric.

    Args:
        metric: its column.
        reward: which reward the scores came from, so that another one with columns of these names is a judge of its
            own; None where that is not known: the name of the column decides.
        lineages: of the models compared, by name.
    """
    kinds = {model: _kind(metric, reward, lineage) for model, lineage in lineages.items()}
    worst = _worst(kinds.values())
    return TrainingMark(worst, tuple(m for m, kind in kinds.items() if kind == worst) if worst != "held_out" else ())


def joined(marks: Collection[TrainingMark]) -> TrainingMark:
    """The mark of what is made of several metrics: that of the worst."""
    worst = _worst(one.kind for one in marks)
    return TrainingMark(
        worst, tuple(dict.fromkeys(model for one in marks if one.kind == worst for model in one.models))
    )


def _worst(kinds: Iterable[Kind]) -> Kind:
    found = set(kinds)
    return next((kind for kind in KINDS if kind in found), "held_out")


def _kind(metric: str, reward: str | None, lineage: Lineage) -> Kind:
    uses = [use for training in lineage.trainings for use in training.rewards]
    if any(metric in use.metrics and (reward is None or use.name in (None, reward)) for use in uses):
        return "trained"
    if any(_is_same(use, reward) for use in uses):
        return "related"
    return "held_out" if lineage.is_complete else "unknown"


def _is_same(use: RewardUse, reward: str | None) -> bool:
    return reward is not None and use.name == reward
