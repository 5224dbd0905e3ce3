"""Preference training of joint audio-video models: DPO with one loss term per modality."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "AVDPOConfig": "dpo.train.config",
    "AVDPOLoss": "dpo.loss.av_dpo",
    "AVDPOTrainer": "dpo.train.trainer",
    "PairCollator": "dpo.data.dataset",
    "PairDataset": "dpo.data.dataset",
    "av_dpo_loss": "dpo.loss.av_dpo",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that a command whose work is finished returns without importing torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dpo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
