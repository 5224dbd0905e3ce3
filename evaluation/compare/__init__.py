"""Paired comparison of models on the same prompts and seeds."""

from __future__ import annotations

from core.lazy import lazy_names

_HOMES = {
    "Comparison": "evaluation.compare.figures",
    "ComparisonRow": "evaluation.compare.figures",
    "PairedScores": "evaluation.compare.tables",
    "TableError": "evaluation.compare.model_table",
    "compare_all": "evaluation.compare.figures",
    "compare_models": "evaluation.compare.figures",
    "pair_models": "evaluation.compare.tables",
    "read_models": "evaluation.compare.tables",
    "read_pairs": "evaluation.compare.tables",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
