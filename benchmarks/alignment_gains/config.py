"""Settings of `python -m benchmarks.alignment_gains`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.bounce_runs import FRESH_SEED, VALIDATION_SEED

Captions = Literal["validation", "fresh"]


@dataclass(frozen=True, kw_only=True)
class GainsConfig:
    """Settings of the benchmark. Sampling settings hold for the pool, the rounds and both sides of every comparison."""

    output_dir: Path = field(metadata={"help": "folder for pools, models, evaluations and figures"})
    model: str = field(default="tiny", metadata={"help": "starting model: it samples, is trained and is the baseline"})
    ceiling: str | None = field(
        default=None, metadata={"help": "model that the starting model could become, for the share of the gap"}
    )
    guidance_scale: float = field(default=1.0, metadata={"help": "guidance, the best of benchmarks.sampler_settings"})
    captions: Captions = field(
        default="validation", metadata={"help": "held-out captions: validation to choose settings, fresh to report"}
    )
    num_held_out: int = field(default=200, metadata={"help": "held-out captions, two samples each"})
    num_prompts: int = field(default=64, metadata={"help": "captions of the pool and of the first round"})
    group_size: int = field(default=8, metadata={"help": "candidates per caption"})
    rounds: int = field(default=4, metadata={"help": "rounds of the rows with rounds"})
    round_prompts: int = field(default=40, metadata={"help": "captions of each of these rounds"})
    num_workers: int = field(default=2, metadata={"help": "processes that sample and score"})
    seeds: list[int] = field(
        default_factory=lambda: [42, 43, 44],
        metadata={"help": "training seeds; rows that carry no claim use the first"},
    )
    only: list[str] = field(default_factory=list, metadata={"help": "names of rows to run; default: all"})

    @property
    def held_out_seed(self) -> int:
        """Seed of the first held-out scene."""
        return VALIDATION_SEED if self.captions == "validation" else FRESH_SEED
