"""Training marks of metrics: a metric that selected a model's training pairs cannot judge that model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from core.lineage import Lineage, RewardUse

Kind = Literal["trained", "related", "unknown", "held_out"]
KINDS: tuple[Kind, ...] = ("trained", "related", "unknown", "held_out")  # the first that applies


@dataclass(frozen=True)
class TrainingMark:
    """Role of a metric in the training of the compared models.

    Attributes:
        kind: "trained": the metric selected winners of pairs on which a model was trained; "related": another score of
            the same reward did; "unknown": no such training is known, but the lineage of a model is incomplete;
            "held_out": no compared model was trained on the metric.
        models: the models to which `kind` applies; empty for a held-out metric.
    """

    kind: Kind
    models: tuple[str, ...] = ()


def mark(metric: str, reward: str | None, lineages: Mapping[str, Lineage]) -> TrainingMark:
    """Return the mark of a metric.

    Args:
        metric: column of the metric.
        reward: name of the reward that computed the scores; another reward with the same columns counts as
            independent. None if the reward is not known: then only the name of the column decides.
        lineages: model name -> lineage, of all compared models.
    """
    kinds = {model: _kind(metric, reward, lineage) for model, lineage in lineages.items()}
    worst = _worst(kinds.values())
    return TrainingMark(worst, tuple(m for m, kind in kinds.items() if kind == worst) if worst != "held_out" else ())


def joined(marks: Collection[TrainingMark]) -> TrainingMark:
    """Return the mark of a score that combines several metrics: the worst of their marks."""
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
