"""The lineage of pairs: the rewards that chose the winners, recorded in models that are trained on the pairs."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from core.lineage import Lineage, PreferenceTraining, RewardUse
from core.score_origin import origin_of
from pipeline.rank.rules import parse_gate
from rewards.metrics import MODALITY_METRICS


def ranking_lineage(scores: pa.Schema, strategy: str, winner_gates: Iterable[str] = ()) -> Lineage:
    """Return the rewards and metric columns that decide, given a scores table's schema, a strategy and gates."""
    uses: dict[tuple[str | None, str | None], list[str]] = {}
    for metric in _deciding(scores.names, strategy, winner_gates):
        origin = origin_of(scores, metric)
        uses.setdefault((origin.reward, origin.version), []).append(metric)
    rewards = [RewardUse(name, version, tuple(metrics)) for (name, version), metrics in uses.items()]
    return Lineage((PreferenceTraining("rewards", tuple(rewards)),))


def _deciding(columns: Iterable[str], strategy: str, winner_gates: Iterable[str]) -> list[str]:
    """Return the metrics of the compared modalities, then those that gates use."""
    compared = ("video", "audio") if strategy == "inconsistent" else tuple(MODALITY_METRICS)
    deciding = [metric for name in compared for metric in MODALITY_METRICS[name]]
    for gate in map(parse_gate, winner_gates):
        deciding += MODALITY_METRICS.get(gate.column.removesuffix("_score"), (gate.column,))
    known = set(columns)
    return [metric for metric in dict.fromkeys(deciding) if metric in known]
