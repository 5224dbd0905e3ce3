"""Notes on the training marks of metrics: the models trained with them, and the held-out metrics."""

from __future__ import annotations

from collections.abc import Sequence

from core.lineage import Lineage
from evaluation.compare.figures import Comparison

WITHOUT_REWARDS = {"labels": "labels of people", "rules": "losers made by rule"}
SYMBOLS = {"trained": "*", "related": "~", "unknown": "?", "held_out": ""}


def training_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return lines on the marks in use, the held-out metrics and each model's preference training."""
    models: dict[str, dict[str, None]] = {}
    kinds: dict[str, str] = {}  # metric -> kind, the same in every comparison
    for row in (row for one in comparisons for row in one.rows):
        models.setdefault(row.training, {}).update(dict.fromkeys(row.marked_models))
        if row.kind == "metric":
            kinds[row.name] = row.training
    lines = [
        f"{SYMBOLS[kind]} {text} {', '.join(models[kind])}"
        for kind, text in (
            ("trained", "a training reward of"),
            ("related", "another score of a training reward of"),
            ("unknown", "perhaps a training reward of"),
        )
        if kind in models
    ]
    held_out = [name for name, kind in kinds.items() if kind == "held_out"]
    lines.append(f"held out, no compared model was trained on them: {', '.join(held_out) or 'none of the metrics'}")
    lineages = {name: lineage for one in comparisons for name, lineage in one.pairs.lineages.items()}
    return [*lines, *(f"{name}: {_describe(lineage)}" for name, lineage in lineages.items())]


def _describe(lineage: Lineage) -> str:
    trained: dict[str, dict[str, None]] = {}  # reward or source, in training order -> metrics
    for training in lineage.trainings:
        if training.source in WITHOUT_REWARDS:
            trained.setdefault(WITHOUT_REWARDS[training.source], {})
        for use in training.rewards:
            name = " ".join(filter(None, [use.name or "an unnamed reward", use.version]))
            trained.setdefault(name, {}).update(dict.fromkeys(use.metrics))
    texts = [f"{name} ({', '.join(metrics)})" if metrics else name for name, metrics in trained.items()]
    if not texts:
        return "no preference training" if lineage.is_complete else "lineage unknown"
    by = f"preferences by {'; '.join(texts)}"
    return by if lineage.is_complete else f"{by}; lineage before that unknown"
