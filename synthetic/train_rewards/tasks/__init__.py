"""Training tasks of the learned rewards on Bounce."""

from __future__ import annotations

from synthetic.train_rewards.tasks.audiobox import AudioBoxTask
from synthetic.train_rewards.tasks.imagebind import ImageBindTask
from synthetic.train_rewards.tasks.synchformer import SynchformerTask
from synthetic.train_rewards.tasks.videoalign import VideoAlignTask

__all__ = ["AudioBoxTask", "ImageBindTask", "SynchformerTask", "VideoAlignTask"]
