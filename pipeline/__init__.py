"""Preference data on Ray: sampling, scoring, ranking, reports, and exchange with JavisDiT's CSV tables."""

from __future__ import annotations

from core.lazy import lazy_names

_HOMES = {
    "PairRules": "pipeline.rank.rules",
    "RankResult": "pipeline.rank.pairing",
    "rank_pairs": "pipeline.rank.pairing",
    "read_javisdit_pairs": "pipeline.exchange.javisdit_csv",
    "read_javisdit_rewards": "pipeline.exchange.javisdit_csv",
    "read_prompts": "core.prompts",
    "write_javisdit_pairs": "pipeline.exchange.javisdit_csv",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
