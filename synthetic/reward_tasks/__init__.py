"""What each learned reward is taught on Bounce."""

from synthetic.reward_tasks.audiobox import AudioBoxTask
from synthetic.reward_tasks.imagebind import ImageBindTask
from synthetic.reward_tasks.synchformer import SynchformerTask
from synthetic.reward_tasks.videoalign import VideoAlignTask

__all__ = ["AudioBoxTask", "ImageBindTask", "SynchformerTask", "VideoAlignTask"]
