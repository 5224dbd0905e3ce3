"""Settings of `python -m dpo.train`, without the fields of `transformers.TrainingArguments`.

Importing this module does not import torch, so `--help` reads the settings from here; `dpo.train.config` joins them
with `TrainingArguments`. Learning rate, warm-up, optimiser, seed and loss weights default to the published stage-3 run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dpo.train.dpo_settings import AVDPOSettings
from dpo.train.nft_settings import NFTSettings
from model.train.settings import AdapterArguments

Objective = Literal["dpo", "nft"]
Trainable = Literal["lora", "full"]
AdapterStart = Literal["new", "continue"]


@dataclass
class TrainSettings(AdapterArguments, AVDPOSettings, NFTSettings):
    """Settings of `python -m dpo.train`: model, data and evaluation during training."""

    objective: Objective = field(
        default="dpo", metadata={"help": "dpo on pairs, or nft on groups of scored candidates (see dpo.prepare)"}
    )
    model: str = field(default="", metadata={"help": "model to align: 'tiny', a model folder or an adapter folder"})
    dataset: str = field(default="", metadata={"help": "folder written by `python -m dpo.prepare`"})
    eval_dataset: str | None = field(
        default=None, metadata={"help": "folder of data that are not trained on, also written by dpo.prepare"}
    )
    trainable: Trainable = field(
        default="lora", metadata={"help": "lora (published; the reference costs no memory) or full"}
    )
    adapter: AdapterStart = field(
        default="new",
        metadata={
            "help": "with an adapter folder: 'continue' trains it (published), 'new' merges it and trains another"
        },
    )
    lora_dropout: float = field(
        default=0.0,
        metadata={
            "help": "dropout of the adapter (published 0.05); its noise makes the policy differ from the reference"
        },
    )
    eval_rewards: list[str] = field(
        default_factory=list, metadata={"help": "rewards that score the samples of sample_prompts"}
    )
    held_out_rewards: list[str] = field(
        default_factory=list, metadata={"help": "rewards for the same samples that chose no training data"}
    )
    reward_weights: str | None = field(
        default=None, metadata={"help": "folder of the rewards' weights, or 'tiny'; see rewards.score"}
    )
    stop_on_decline: float | None = field(
        default=None,
        metadata={
            "help": "stop when held-out scores are this many standard deviations below their start, twice in a row"
        },
    )
