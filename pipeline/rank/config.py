"""The settings of `python -m pipeline.rank`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from core.storage import StoragePath
from pipeline.rank.rules import GroundTruthPolicy, PairRules, Strategy, check_rules


@dataclass(frozen=True, kw_only=True)
class RankSettings(PairRules):
    """Settings that decide the pairs of given scores."""

    strategy: Strategy = field(default="modality_micro", metadata={"help": "Rule that compares candidates."})
    ground_truth: GroundTruthPolicy = field(default="any", metadata={"help": "Whether the real clip may be in a pair."})
    statistics: StoragePath | None = field(
        default=None,
        metadata={
            "help": "ranking.json of an earlier run, whose means and deviations take the place of this table's own: "
            "margins and gates of several batches are then on one scale."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rules(self, self.strategy, self.statistics is not None)


@dataclass(frozen=True, kw_only=True)
class RankConfig(RankSettings):
    """Settings of `python -m pipeline.rank`."""

    output_dir: StoragePath = field(
        metadata={"help": "Folder of the run; candidates/ and scores/ are read, pairs/ is written."}
    )
    dry_run: bool = field(default=False, metadata={"help": "Print the configuration and what is left to do."})

    @property
    def folder(self) -> Path:
        return self.output_dir / "pairs"
