"""Judges and rewards: their interfaces, the registry, and the suite that scores files with several rewards."""

from __future__ import annotations

from rewards.base import Judge, Prompt, Reward
from rewards.metrics import HIGHER_IS_BETTER, METRIC_COLUMNS, MODALITY_METRICS
from rewards.registry import MissingPackageError, available_rewards, expand_names, get_judge, get_reward
from rewards.suite import ClipFile, RewardSuite, ScoreRow

__all__ = [
    "HIGHER_IS_BETTER",
    "METRIC_COLUMNS",
    "MODALITY_METRICS",
    "ClipFile",
    "Judge",
    "MissingPackageError",
    "Prompt",
    "Reward",
    "RewardSuite",
    "ScoreRow",
    "available_rewards",
    "expand_names",
    "get_judge",
    "get_reward",
]
