"""Evaluation of models: metrics on a benchmark, and paired comparison with intervals and tests.

`evaluate` measures one model. `compare_models` compares two; it lives in the room `evaluation.compare`, which is also
a command, so `from evaluation import compare` gives that package and `compare.compare_models` the function.
"""

from __future__ import annotations

from core.lazy import lazy_names

_HOMES = {
    "Audit": "evaluation.audit.result",
    "Comparison": "evaluation.compare.figures",
    "ComparisonRow": "evaluation.compare.figures",
    "EvaluateConfig": "evaluation.run.config",
    "PairedScores": "evaluation.compare.tables",
    "RewardColumn": "evaluation.audit.columns",
    "TableError": "evaluation.compare.model_table",
    "compare_all": "evaluation.compare.figures",
    "compare_models": "evaluation.compare.figures",
    "evaluate": "evaluation.run.command",
    "read_pairs": "evaluation.compare.tables",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
