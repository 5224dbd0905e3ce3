"""Judges and rewards: their interfaces, the registry, and the suite that scores files with several rewards."""

from __future__ import annotations

from core.lazy import lazy_names

_HOMES = {
    "HIGHER_IS_BETTER": "rewards.metrics",
    "METRIC_COLUMNS": "rewards.metrics",
    "MODALITY_METRICS": "rewards.metrics",
    "ClipFile": "rewards.decode",
    "Judge": "rewards.base",
    "MissingPackageError": "rewards.registry",
    "Prompt": "rewards.base",
    "Reward": "rewards.base",
    "RewardSuite": "rewards.suite",
    "ScoreRow": "rewards.suite",
    "available_rewards": "rewards.registry",
    "expand_names": "rewards.registry",
    "get_judge": "rewards.registry",
    "get_reward": "rewards.registry",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
