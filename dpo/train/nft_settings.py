"""Settings of the objective nft, negative-aware fine-tuning on stored groups of candidates; imports no torch.

Published values: DiffusionNFT (arXiv 2509.16117) and OmniNFT (arXiv 2605.12480), in docs/upstream/nft.md, section 6.
Defaults are for stored candidates that are seen a few times (docs/upstream/nft.md, section 9).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from dpo.loss.nft_settings import AdvantageMode, AdvantageScale, NFTForm, Prediction
from dpo.train.objective_settings import PreferenceSettings


@dataclass
class NFTSettings(PreferenceSettings):
    """Settings of the loss, the advantages and the batches of `NFTTrainer`."""

    section: ClassVar[str] = "With objective nft:"

    nft_beta: float = field(
        default=1.0,
        metadata={"help": "distance of the trained velocities from the old one (published 1; OCR 0.1)"},
    )
    adv_clip: float = field(
        default=1.0,
        metadata={"help": "bound c of the advantages; only c * nft_beta sets how far a round goes (published 5)"},
    )
    nft_form: NFTForm = field(
        default="plain", metadata={"help": "plain (the paper's equation) or adaptive (the published code)"}
    )
    nft_prediction: Prediction = field(
        default="velocity",
        metadata={"help": "errors of velocity or x0; with adaptive: of the distance to the reference"},
    )
    adv_scale: AdvantageScale = field(
        default="table",
        metadata={"help": "spread that divides a reward: of the table (published), its group, or mad (robust)"},
    )
    adv_mode: AdvantageMode = field(
        default="all", metadata={"help": "all, positive_only, negative_only, one_only or binary, after the clip"}
    )
    routing: str | dict = field(
        default="routed",
        metadata={
            "help": "routed: a reward trains its modality; summed: both; or '{desync: {video: 0.5, audio: 1}, ...}'"
        },
    )
    reward_mix: dict | None = field(
        default=None,
        metadata={"help": "weights, as '{ib_ta: 1, desync: 0.5}', of the only rewards; default: of ranking, equal"},
    )
    kl_weight_video: float = field(
        default=0.0, metadata={"help": "weight of the squared distance to the reference, video (published 1e-4)"}
    )
    kl_weight_audio: float = field(default=0.0, metadata={"help": "the same for audio (published 1e-4)"})
    shared_draws: bool = field(
        default=False,
        metadata={"help": "one timestep and noise per group and epoch; batches then hold whole groups or equal parts"},
    )
    replay: list[str] = field(
        default_factory=list, metadata={"help": "folders of groups of earlier rounds, to train on some of them again"}
    )
    replay_share: float = field(default=0.0, metadata={"help": "share of all rows that come from replay, in [0, 1)"})
    shuffle_advantages: bool = field(
        default=False,
        metadata={"help": "control experiment: give each candidate the advantage of another of its group"},
    )
