"""Comparison of models on the same prompts, with intervals and tests."""

from __future__ import annotations

from evaluation.compare.figures import Comparison, ComparisonRow, compare_all, compare_models
from evaluation.compare.model_table import TableError
from evaluation.compare.tables import PairedScores, read_pairs

__all__ = ["Comparison", "ComparisonRow", "PairedScores", "TableError", "compare_all", "compare_models", "read_pairs"]
