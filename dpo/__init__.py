"""Preference training of joint audio-video models: DPO on pairs, NFT on groups, with one loss term per modality."""

from __future__ import annotations

from core.lazy import lazy_names

_HOMES = {
    "AVDPOConfig": "dpo.train.config",
    "AVDPOLoss": "dpo.loss.av_dpo",
    "AVDPOTrainer": "dpo.train.trainer",
    "GroupCollator": "dpo.data.group_dataset",
    "GroupDataset": "dpo.data.group_dataset",
    "NFTConfig": "dpo.train.config",
    "NFTLoss": "dpo.loss.nft",
    "NFTTrainer": "dpo.train.nft_trainer",
    "PairCollator": "dpo.data.dataset",
    "PairDataset": "dpo.data.dataset",
    "av_dpo_loss": "dpo.loss.av_dpo",
    "group_advantages": "dpo.loss.advantages",
    "nft_loss": "dpo.loss.nft",
    "region_loss": "dpo.loss.local_dpo",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
