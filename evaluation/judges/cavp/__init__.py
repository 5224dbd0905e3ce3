"""Agreement of picture and sound by Diff-Foley's CAVP: `cavp_score`."""

from __future__ import annotations

from evaluation.judges.cavp.config import CavpConfig
from evaluation.judges.cavp.judge import CavpJudge

__all__ = ["CavpConfig", "CavpJudge"]
