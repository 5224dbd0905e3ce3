"""Audit of rewards before training on them: what their scores within prompts can teach, and what else they pay for."""

from __future__ import annotations

from core.lazy import lazy_names

_HOMES = {
    "Audit": "evaluation.audit.result",
    "RewardColumn": "evaluation.audit.columns",
    "audit": "evaluation.audit.figures",
    "audit_text": "evaluation.audit.render",
    "reward_columns": "evaluation.audit.columns",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
