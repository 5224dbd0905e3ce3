"""The features of FVD and KVD: the class logits of I3D over 24 frames of a clip."""

from __future__ import annotations

from evaluation.judges.i3d.judge import I3DJudge

__all__ = ["I3DJudge"]
