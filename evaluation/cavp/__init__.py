"""Agreement of picture and sound by Diff-Foley's CAVP: `cavp_score`."""

from evaluation.cavp.config import CavpConfig
from evaluation.cavp.extractor import CavpExtractor

__all__ = ["CavpConfig", "CavpExtractor"]
