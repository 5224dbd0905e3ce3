"""ImageBind: agreement of picture, sound and prompt. The network and its front ends are in the submodules."""

from __future__ import annotations

from rewards.imagebind.reward import ImageBindReward

__all__ = ["ImageBindReward"]
