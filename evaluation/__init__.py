"""Comparison of models on the same prompts, with intervals and tests."""

from evaluation.figures import Comparison, ComparisonRow, compare_all, compare_models
from evaluation.model_table import TableError
from evaluation.tables import PairedScores, read_pairs

__all__ = ["Comparison", "ComparisonRow", "PairedScores", "TableError", "compare_all", "compare_models", "read_pairs"]
