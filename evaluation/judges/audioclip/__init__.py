"""AudioCLIP's audio head, whose embeddings JavisBench takes for the Frechet audio distance."""

from __future__ import annotations

from evaluation.judges.audioclip.judge import AudioClipJudge

__all__ = ["AudioClipJudge"]
