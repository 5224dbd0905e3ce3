"""VideoReward of VideoAlign: a Qwen2-VL encoder with a linear head, which gives a clip and its prompt three scores."""

from __future__ import annotations

from rewards.videoalign.reward import VideoAlignReward

__all__ = ["VideoAlignReward"]
