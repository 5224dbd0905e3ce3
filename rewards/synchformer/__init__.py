"""Audio-video synchrony by Synchformer: `desync`, in seconds."""

from __future__ import annotations

from rewards.synchformer.config import SynchformerConfig
from rewards.synchformer.reward import SynchformerReward

__all__ = ["SynchformerConfig", "SynchformerReward"]
