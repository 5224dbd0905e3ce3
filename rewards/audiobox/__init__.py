"""The reward `audiobox`: how good a sound is to listen to, by AudioBox-Aesthetics."""

from __future__ import annotations

from rewards.audiobox.reward import AudioBoxReward

__all__ = ["AudioBoxReward"]
