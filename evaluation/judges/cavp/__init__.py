"""Agreement of picture and sound by Diff-Foley's CAVP: `cavp_score`."""

from __future__ import annotations

from evaluation.judges.cavp.config import CavpConfig
from evaluation.judges.cavp.extractor import CavpExtractor

__all__ = ["CavpConfig", "CavpExtractor"]
