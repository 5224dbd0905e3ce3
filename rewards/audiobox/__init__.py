"""The reward `audiobox`: aesthetic quality of a sound, by AudioBox-Aesthetics."""

from __future__ import annotations

from rewards.audiobox.reward import AudioBoxReward

__all__ = ["AudioBoxReward"]
