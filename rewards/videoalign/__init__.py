"""VideoReward of VideoAlign: a Qwen2-VL encoder with a linear head, asked for three scores of a clip and its prompt."""

from __future__ import annotations

from rewards.videoalign.reward import VideoAlignReward

__all__ = ["VideoAlignReward"]
