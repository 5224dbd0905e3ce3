"""Rewards: what they are, where they are found, and the suite that scores files with them."""

from __future__ import annotations

from rewards.base import Prompt, Reward
from rewards.metrics import HIGHER_IS_BETTER, METRIC_COLUMNS, MODALITY_METRICS
from rewards.registry import MissingPackageError, available_rewards, expand_names, get_reward
from rewards.suite import ClipFile, RewardSuite, ScoreRow

__all__ = [
    "HIGHER_IS_BETTER",
    "METRIC_COLUMNS",
    "MODALITY_METRICS",
    "ClipFile",
    "MissingPackageError",
    "Prompt",
    "Reward",
    "RewardSuite",
    "ScoreRow",
    "available_rewards",
    "expand_names",
    "get_reward",
]
