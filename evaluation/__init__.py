"""Comparison of models on the same prompts, with intervals."""

from evaluation.figures import ComparisonRow, compare_models
from evaluation.tables import PairedScores, TableError, read_pairs

__all__ = ["ComparisonRow", "PairedScores", "TableError", "compare_models", "read_pairs"]
