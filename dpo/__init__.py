"""Preference training of joint audio-video models: DPO with one loss term per modality."""

from __future__ import annotations

from core.lazy import lazy_names

_HOMES = {
    "AVDPOConfig": "dpo.train.config",
    "AVDPOLoss": "dpo.loss.av_dpo",
    "AVDPOTrainer": "dpo.train.trainer",
    "PairCollator": "dpo.data.dataset",
    "PairDataset": "dpo.data.dataset",
    "av_dpo_loss": "dpo.loss.av_dpo",
    "region_loss": "dpo.loss.local_dpo",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
